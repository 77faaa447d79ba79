"""The examples of the guides in docs, as whoever pastes them one after the other into a file runs them."""

import re
from pathlib import Path

import pytest

from tests.conftest import Run

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = sorted(page for page in DOCS.glob("*.md") if "```python" in page.read_text())


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_the_examples_of_a_guide_run(run: Run, guide: Path) -> None:
    text = guide.read_text()
    examples = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(examples) == text.count("```python")
    program = run("\n".join([*examples, "print('done')"]))
    assert (program.stdout.splitlines()[-1:], program.stderr) == (["done"], "")
