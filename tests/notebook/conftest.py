"""A notebook for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebook.kernel import Notebook, started


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    with started(tmp_path) as notebook:
        yield notebook
