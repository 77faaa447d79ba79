"""What all tests share: a small pool, and Python programs run as a user runs them."""

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

import shoal

# How long an example takes says something about the machine, not about the code; so does how long it takes to draw it.
hypothesis.settings.register_profile("shoal", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shoal")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def enough_time_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two seconds of work why something can't travel is told as far as it is known: on a busy machine, less."""
    for module in ("why", "cost"):
        monkeypatch.setattr(f"shoal.serialize.{module}._SECONDS", 100.0)


@pytest.fixture
def pool() -> Iterator[shoal.Pool]:
    """A pool of two workers; all of it is gone when the test ends."""
    with shoal.Pool(2) as pool:
        yield pool
    pool.join()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program in a directory of its own: run(source, *arguments, via="script" | "-c" | "stdin" | "repl")."""

    def run(source: str, *arguments: str, via: str = "script") -> subprocess.CompletedProcess[str]:
        source = textwrap.dedent(source).lstrip()
        script = tmp_path / "program.py"
        script.write_text(source)
        command = {"script": [str(script)], "-c": ["-c", source], "stdin": ["-"], "repl": ["-q", "-i"]}[via]
        return subprocess.run(
            [sys.executable, *command, *arguments],
            input=source if via in ("stdin", "repl") else "",
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=150,
        )

    return run
