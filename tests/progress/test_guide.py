"""The examples of docs/progress.md, as whoever pastes them into a file runs them."""

import re
from pathlib import Path

from tests.conftest import Run

GUIDE = Path(__file__).parents[2] / "docs" / "progress.md"


def test_the_examples_run(run: Run) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(examples) == GUIDE.read_text().count("```python") > 0
    program = run("\n".join([*examples, "pool.terminate()", "print('done')"]))
    assert program.stdout == "half-way: 1\ndone\n", program.stderr
    assert "Traceback" not in program.stderr and "100%" in program.stderr
