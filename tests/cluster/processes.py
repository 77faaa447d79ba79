"""A Dask cluster whose scheduler and workers are processes of a test's own, to be killed, stopped and started anew."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pool.support import eventually


class Machines:
    """A scheduler, and nodes by the names that a test gives them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "scheduler.json"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._run("scheduler", "scheduler", "--port", "0", "--no-show", "--scheduler-file", str(self._file))
        self.address = ""
        assert eventually(self._is_known), "the scheduler does not start"

    def _is_known(self) -> bool:
        # The file is there before all of it is written.
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.address = str(json.loads(self._file.read_text())["address"])
        return self.address != ""

    def node(self, name: str) -> str:
        """Start a node; its address, when the scheduler knows it."""
        self._run(name, "worker", self.address, "--nthreads", "1", "--no-nanny", "--name", name)
        assert eventually(lambda: name in self._known()), f"node {name} does not start"
        return self._known()[name]

    def kill(self, name: str) -> None:
        """End a process as if its machine were gone."""
        self.processes[name].kill()
        self.processes[name].wait()

    def _known(self) -> dict[str, str]:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return {worker["name"]: address for address, worker in client.scheduler_info(-1)["workers"].items()}

    def _run(self, name: str, command: str, *arguments: str) -> None:
        common = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "DASK_TEMPORARY_DIRECTORY": str(self._folder)}
        with (self._folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", command, *common, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end(self) -> None:
        """Kill whatever is left."""
        for name, process in self.processes.items():
            if process.poll() is None:
                self.kill(name)


@contextmanager
def machines(folder: Path, *names: str) -> Iterator[Machines]:
    """A scheduler and nodes of these names; all gone at the end."""
    started = Machines(folder)
    try:
        for name in names:
            started.node(name)
        yield started
    finally:
        started.end()
