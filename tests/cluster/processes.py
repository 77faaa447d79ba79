"""A Dask cluster whose scheduler and workers are processes of a test's own, to be killed, stopped and started anew."""

from __future__ import annotations

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
        self.address = ""

    def start(self) -> None:
        """Start the scheduler."""
        self._dask("scheduler", "scheduler", "--port", "0", "--no-show", "--scheduler-file", str(self._file))
        assert eventually(self._told), "the scheduler does not start"

    def _told(self) -> bool:
        """Whether the scheduler has told its address: the file is there before all that is in it."""
        try:
            self.address = json.loads(self._file.read_text())["address"]
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return True

    def node(self, name: str) -> str:
        """Start a node; its address, when the scheduler knows it."""
        return self.nodes(name)[name]

    def nodes(self, *names: str, **environment: str) -> dict[str, str]:
        """Start several; their addresses, when the scheduler knows them all."""
        for name in names:
            arguments = "worker", self.address, "--nthreads", "1", "--no-nanny", "--name", name
            self._dask(name, *arguments, **environment)
        assert eventually(lambda: set(names) <= self.known().keys()), f"nodes {names} do not start"
        known = self.known()
        return {name: known[name] for name in names}

    def kill(self, name: str) -> None:
        """End a process as if its machine were gone."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def known(self) -> dict[str, str]:
        """The addresses of the nodes that the scheduler knows, by name."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return {worker["name"]: address for address, worker in client.scheduler_info(-1)["workers"].items()}

    def _dask(self, name: str, command: str, *arguments: str, **environment: str) -> None:
        common = ["--host", self.host_of(name), "--dashboard-address", f"{self.host_of(name)}:0"]
        self.run(name, sys.executable, "-m", "dask", command, *common, *arguments, **environment)

    def host_of(self, name: str) -> str:
        """The address of the machine that a process of this name runs on."""
        return "127.0.0.1"

    def command(self, name: str, *command: str) -> list[str]:
        """What runs a command there."""
        return list(command)

    def run(self, name: str, *command: str, **environment: str) -> None:
        """Start a process."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.getcwd(),
            "DASK_TEMPORARY_DIRECTORY": str(self._folder),
            **environment,
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name, *command), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def end(self) -> None:
        """Kill whatever is left."""
        for name in list(self.processes):
            self.kill(name)


@contextmanager
def machines(folder: Path, *names: str) -> Iterator[Machines]:
    """A scheduler and nodes of these names; all gone at the end."""
    started = Machines(folder)
    try:
        started.start()
        for name in names:
            started.node(name)
        yield started
    finally:
        started.end()
