"""What the tests of futures and executors share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.executor.support import Gate


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Closed; open when the test has ended."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()
