"""The examples of the guides in docs, as whoever pastes them one after the other into a file runs them."""

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tests.conftest import Run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text())]
# A translation has the code of its original, comments aside.
TRANSLATIONS = {DOCS / "zh" / "tutorial.md": DOCS / "tutorial.md", ROOT / "README.zh.md": ROOT / "README.md"}

# What the examples of a guide print at the end, if anything.
PRINTED = {
    "how-things-travel.md": "dict travels with 4.0 MB:\n    ['pixels']     4.0 MB  ndarray\n",
    "logging.md": "shoal-worker-0 0.0 item 7\nMainProcess - here\nraised: careful\n",
    "README.md": "1000000\n",
    "progress.md": "half-way: 1\n",
}
# What is said on stderr by those that don't draw bars.
SAID = {"debug.md": "Fatal Python error: Segmentation fault"}


def examples(page: Path) -> list[str]:
    text = page.read_text()
    found = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(found) == text.count("```python")
    return found


@pytest.mark.parametrize("guide", [g for g in GUIDES if g not in TRANSLATIONS], ids=lambda guide: guide.stem)
def test_the_examples_of_a_guide_run(run: Run, guide: Path) -> None:
    code = "\n".join(examples(guide))
    program = run(f"{code}\nprint('done')")
    if "tqdm" in code or "progress=" in code:
        assert "Traceback" not in program.stderr and "100%" in program.stderr
    elif guide.name in SAID:
        assert SAID[guide.name] in program.stderr and "Traceback" not in program.stderr
    else:
        assert program.stderr == ""
    assert program.stdout.endswith(PRINTED.get(guide.name, "") + "done\n")


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_translation_has_the_examples_of_its_original(translation: Path) -> None:
    original = TRANSLATIONS[translation]
    assert [tokens(code) for code in examples(translation)] == [tokens(code) for code in examples(original)]
    for kind in ("diff", "text", "sh"):
        fence = re.compile(rf"^```{kind}\n(.*?)^```", re.DOTALL | re.MULTILINE)
        assert fence.findall(translation.read_text()) == fence.findall(original.read_text())


def test_the_figures_of_the_translated_readme_are_those_of_the_original() -> None:
    assert figures(ROOT / "README.zh.md") == figures(ROOT / "README.md")


def figures(page: Path) -> list[list[str]]:
    """The numbers in each row of its tables. Thousands are set off in one and not in the other."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    return [re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d) (?=\d{3})", "", row)) for row in rows]


def tokens(code: str) -> list[str]:
    """What Python reads of it."""
    read = tokenize.generate_tokens(io.StringIO(code).readline)
    return [token.string for token in read if token.type not in (tokenize.COMMENT, tokenize.NL)]


def test_the_program_that_compares_threads_and_processes_runs() -> None:
    command = [
        sys.executable,
        str(ROOT / "examples" / "which_when.py"),
        "--size",
        "0.02",
        "--rounds",
        "1",
        "--workers",
        "2",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = re.findall(r"^(\w.*?) {2,}([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", ran.stdout, re.MULTILINE)
    assert [row[0] for row in rows][::3] == ["Python code", "one array, read by all", "tiny tasks"]
