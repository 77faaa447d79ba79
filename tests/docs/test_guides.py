"""The examples of the guides in docs, as whoever pastes them one after the other into a file runs them."""

import re
from pathlib import Path

import pytest

from tests.conftest import Run

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = sorted(page for page in DOCS.glob("*.md") if "```python" in page.read_text())

# What the examples of a guide print, if anything.
PRINTED = {
    "how-things-travel.md": "dict travels with 4.0 MB:\n    ['pixels']     4.0 MB  ndarray\n",
    "logging.md": "shoal-worker-0 0.0 item 7\nMainProcess - here\nraised: careful\n",
    "progress.md": "half-way: 1\n",
}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_the_examples_of_a_guide_run(run: Run, guide: Path) -> None:
    text = guide.read_text()
    examples = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(examples) == text.count("```python")
    program = run("\n".join([*examples, "print('done')"]))
    if guide.name == "progress.md":
        assert "Traceback" not in program.stderr and "100%" in program.stderr
    else:
        assert program.stderr == ""
    assert program.stdout.endswith(PRINTED.get(guide.name, "") + "done\n")
