"""The examples of docs/random.md, as whoever pastes them into a file runs them."""

import re
from pathlib import Path

from tests.conftest import Run

GUIDE = Path(__file__).parents[2] / "docs" / "random.md"


def test_the_examples_run(run: Run) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(examples) == GUIDE.read_text().count("```python") > 0
    program = run("\n".join([*examples, "print('done')"]))
    assert (program.stdout, program.stderr) == ("done\n", "")
