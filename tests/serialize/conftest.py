"""Fixtures for the tests of what travels between processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.serialize.peer import Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Another process."""
    with Peer() as other:
        yield other


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[[str], str]:
    """Runs a text as a program, in whose `__main__` the text's definitions are, and returns what it printed."""

    def run(text: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(text))
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
