"""The reference has every public name, once, and every one of them is documented."""

import inspect
import re
from collections import Counter
from pathlib import Path

import shoal

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
NAMES = Counter(
    name for page in REFERENCE.glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
)
# A module, whose names are listed; a string.
OTHERS = {"joblib", "__version__"}


def test_every_public_name_is_there_once() -> None:
    public = {f"shoal.{name}" for name in shoal.__all__ if name not in OTHERS}
    assert public <= NAMES.keys()
    assert set(NAMES.values()) == {1}
    assert {f"shoal.joblib.{name}" for name in shoal.joblib.__all__} <= NAMES.keys()


def test_the_index_has_every_public_name() -> None:
    index = (REFERENCE / "index.md").read_text()
    assert [name for name in shoal.__all__ if name not in OTHERS and f"[shoal.{name}]" not in index] == []


def test_every_public_name_has_a_docstring() -> None:
    for name in shoal.__all__:
        if name not in OTHERS:
            assert inspect.getdoc(getattr(shoal, name)), name


def test_examples_are_written_so_that_they_are_run() -> None:
    for name in shoal.__all__:
        thing = getattr(shoal, name)
        methods = vars(thing).values() if inspect.isclass(thing) else ()
        for text in [thing.__doc__, *(method.__doc__ for method in methods)]:
            assert not re.search(r"Example:\n\s+(?!\s*>>>)", text or ""), text
