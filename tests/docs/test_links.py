"""Links lead somewhere, in the pages that the site does not hold. Of those in docs the build of the site sees to it.

Also what code says of pages: a comment that names one is a link as well.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
PAGE = re.compile(r"\bdocs/[\w./-]+\.md\b")


def pages() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    yield from ROOT.glob("crates/**/*.md")


def sources() -> Iterator[Path]:
    for folder, kind in (("python", "py"), ("tests", "py"), ("benchmarks", "py"), ("examples", "py"), ("crates", "rs")):
        yield from ROOT.glob(f"{folder}/**/*.{kind}")


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(pages()), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        there = page.parent / target if target else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_pages_that_code_names_exist() -> None:
    named = {(source, name) for source in sources() for name in PAGE.findall(source.read_text())}
    missing = [f"{source.relative_to(ROOT)}: {name}" for source, name in sorted(named) if not (ROOT / name).exists()]
    assert not missing
    assert named
