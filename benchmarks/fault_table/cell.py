"""One tool meets one fault, in processes of its own that are watched from outside and ended after a while.

All of them have a mark in their environment: so whoever is left when the program has ended is found, whatever group or
parent it has. What is left in memory is what lies in /dev/shm and in the folder for temporary files.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.bench.clusters import PRIVATE_MARK, PRIVATE_NETWORK
from shoal.bench.sessions import Unsupported

from .. import ROOT
from .faults import FAULTS, Fault
from .tools import TOOLS, Tool

_MARK = "BENCHMARK_FAULT_CELL"
# How long what is to be gone may take to go.
_LEAVING_S = 20.0
_SHARED = Path("/dev/shm")


@dataclass
class Story:
    """How it went: what the program told, and what was seen from outside."""

    told: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    tracebacks: int = 0
    orphans: int = 0
    left: int = 0
    seconds: float = 0.0
    stderr: str = ""


def run(fault: Fault, tool: Tool, limit: float) -> Story:
    """Lets the tool meet the fault, for `limit` seconds at most."""
    limit += tool.start
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "benchmarks.fault_table", "--cell", fault.name, tool.name]
    environment = {**os.environ, _MARK: mark}
    if tool.private_network and subprocess.run([*PRIVATE_NETWORK, "true"], capture_output=True).returncode == 0:
        command = [*PRIVATE_NETWORK, *command]
        environment[PRIVATE_MARK] = "1"
    shared = _sizes(_SHARED)
    with tempfile.TemporaryDirectory(prefix="cell", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        environment |= {"TMPDIR": str(folder / "tmp"), "CELL_FOLDER": name}
        with open(folder / "stderr", "wb") as stderr:
            started = time.monotonic()
            child = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=stderr, stderr=stderr, start_new_session=True
            )
            try:
                story = Story()
                if fault.sent is not None:
                    if not _until(lambda: len(list(folder.glob("begun-*"))) == 2 or child.poll() is not None, limit):
                        raise RuntimeError(f"{fault.name}, {tool.name}: tasks do not begin")
                    # The terminal sends Ctrl-C to the whole group.
                    (os.killpg if fault.sent == signal.SIGINT else os.kill)(child.pid, fault.sent)
                    started = time.monotonic()
                story.ended = _until(lambda: child.poll() is not None, limit)
                story.seconds = time.monotonic() - started
                if story.ended:
                    _until(lambda: not _marked(mark), _LEAVING_S)
                    story.orphans = len(_marked(mark))
                if story.ended and fault.sent == signal.SIGKILL:
                    after = _sizes(_SHARED)
                    story.left = sum(size for path, size in after.items() if path not in shared)
                    story.left += sum(_sizes(folder / "tmp").values())
            finally:
                while pids := _marked(mark):
                    for pid in pids:
                        _kill(pid)
                    time.sleep(0.05)
                child.wait()
        story.stderr = (folder / "stderr").read_text(errors="replace")
        story.tracebacks = story.stderr.count("Traceback (most recent call last)")
        told = folder / "told"
        for line in told.read_text().splitlines() if told.exists() else ():
            story.told |= json.loads(line)
        if "broken" in story.told:
            raise RuntimeError(f"{fault.name}, {tool.name}: {story.told['broken']}\n{story.stderr[-2000:]}")
    return story


def run_here(fault: str, tool: str) -> None:
    """The program."""
    folder = Path(os.environ["CELL_FOLDER"])

    def tell(**facts: Any) -> None:
        with open(folder / "told", "a") as file:
            file.write(json.dumps(facts) + "\n")

    try:
        FAULTS[fault].program(TOOLS[tool], tell, folder)
    except Unsupported as reason:
        tell(unsupported=str(reason))
    except Exception as error:
        # Of the pool itself, in the place where the program meets it.
        tell(raised=type(error).__name__)
        raise


def _until(there: Callable[[], bool], limit: float) -> bool:
    deadline = time.monotonic() + limit
    while not (found := there()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _marked(mark: str) -> list[int]:
    """The processes of a cell that are alive."""
    wanted = f"{_MARK}={mark}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # That of a process that has ended is empty.
            if wanted in (entry / "environ").read_bytes():
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if path.is_file():
            sizes[str(path)] = status.st_blocks * 512
    return sizes
