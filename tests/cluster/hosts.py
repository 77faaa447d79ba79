"""Hosts of their own on this machine: each has its own network, processes, name and /dev/shm, in namespaces.

    hub, a bridge ─┬─ client       10.77.0.1    the test's own sockets are here, see `at`
                   ├─ scheduler    10.77.0.2
                   └─ a, b …       10.77.0.3 …

Nothing of it has a name outside, and nothing leads to the machine's own network. A host lives as long as its first
process, which waits for the end of a pipe that the test holds: when the test ends, in whatever way, that process ends,
and the kernel ends with it whatever runs on the host.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

from tests.cluster.processes import Machines

_NAMESPACES = ("--net", "--mount", "--uts", "--pid")
_APART = ("unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc")
# The shell stays, as the parent of whoever loses its own.
_FIRST = 'hostname "$0" && mount -t tmpfs none /dev/shm && ip link set lo up && echo up && cat; exit'

_BRIDGE = "ip link add hub type bridge && ip link set hub up"
# What does not fit is dropped when it has waited for 0.4 s.
_SLOW = "root tbf rate 1mbit burst 16kb latency 400ms"

_CLONE_NEWNET = 0x4000_0000


@cache
def missing() -> str | None:
    """What there is no host without, and this machine lacks; None if it has all."""
    attempt = f"{_BRIDGE} && ip link add one type veth peer name other && tc qdisc add dev one {_SLOW}"
    try:
        tried = subprocess.run([*_APART, "sh", "-c", attempt], capture_output=True, text=True)
    except FileNotFoundError as error:
        return f"there is no {error.filename}"
    return f"namespaces can't be made here: {tried.stderr.strip()}" if tried.returncode else None


class Host:
    """A host that is connected to nothing.

    Attributes:
        address: the one it is to have.
        cable: the end of its cable in the hub. A name of its own: that of a host that has ended stays for a moment.
    """

    def __init__(self, name: str, number: int = 0) -> None:
        self.address, self.cable = f"10.77.0.{number}", f"cable{number}"
        self._life = subprocess.Popen(
            [*_APART, "sh", "-c", _FIRST, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._life.stdout is not None
        if self._life.stdout.readline() != b"up\n":
            self.end()
            raise OSError(f"host {name} does not start")
        (self._first,) = psutil.Process(self._life.pid).children()

    @property
    def pid(self) -> int:
        """Its first process, as the test sees it."""
        return self._first.pid

    def command(self, *command: str) -> list[str]:
        """What runs a command on it."""
        return ["nsenter", f"--target={self.pid}", *_NAMESPACES, *command]

    def shell(self, command: str) -> None:
        """Run a line of shell on it."""
        subprocess.run(self.command("sh", "-c", command), check=True)

    def process(self, number: int) -> psutil.Process:
        """The process that has this number there."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        for pid in psutil.pids():
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") == space and _numbers(pid)[-1] == number:
                    return psutil.Process(pid)
            except OSError:  # it has ended
                continue
        raise psutil.NoSuchProcess(number)

    def end(self) -> None:
        """Switch it off."""
        self._life.communicate()


def _numbers(pid: int) -> list[int]:
    """The numbers of a process, in our namespace first and in its own last."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [int(number) for line in lines if line.startswith("NSpid:") for number in line.split()[1:]]


class Hosts(Machines):
    """A scheduler and nodes, each on a host of its own that has its name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._numbers = iter(range(1, 255))
        self._hub = Host("hub")
        self._hosts: dict[str, Host] = {}

    def start(self) -> None:
        """Connect what there is, and start the scheduler."""
        self._hub.shell(_BRIDGE)
        self.host("client")
        super().start()

    def host(self, name: str) -> Host:
        """The host of this name, which is made when it is first asked for."""
        if name not in self._hosts:
            host = self._hosts[name] = Host(name, next(self._numbers))
            # In the hub's network, but among our processes: it is to find the one of this number.
            ends = ["name", host.cable, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)]
            subprocess.run(["nsenter", f"--target={self._hub.pid}", "--net", "ip", "link", "add", *ends], check=True)
            host.shell(f"ip address add {host.address}/24 dev eth0 && ip link set eth0 up")
            self._hub.shell(f"ip link set dev {host.cable} master hub up")
        return self._hosts[name]

    def host_of(self, name: str) -> str:
        """See `Machines`."""
        return self.host(name).address

    def command(self, name: str, *command: str) -> list[str]:
        """See `Machines`."""
        return self.host(name).command(*command)

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """The sockets of this thread, and of those that it starts, are on a host."""
        with open("/proc/thread-self/ns/net") as here, open(f"/proc/{self.host(name).pid}/ns/net") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())

    def cut(self, name: str) -> None:
        """Pull its cable: nothing comes through, and nobody is told."""
        self._hub.shell(f"ip link set dev {self._hosts[name].cable} down")

    def mend(self, name: str) -> None:
        """Put it in again."""
        self._hub.shell(f"ip link set dev {self._hosts[name].cable} up")

    def slow_down(self, name: str) -> None:
        """From now on no more than 1 Mbit/s come through to it, and not all that is sent."""
        self._hub.shell(f"tc qdisc add dev {self._hosts[name].cable} {_SLOW}")

    def freeze(self, name: str) -> None:
        """Stop the Dask worker that runs there, and not the workers of its pools."""
        self._dask_worker(name).suspend()

    def wake(self, name: str) -> None:
        """Let it go on."""
        # Whoever brought it there has stopped with it.
        self.processes[name].send_signal(signal.SIGCONT)
        self._dask_worker(name).resume()

    def _dask_worker(self, name: str) -> psutil.Process:
        (process,) = psutil.Process(self.processes[name].pid).children()
        return process

    def kill(self, name: str) -> None:
        """Switch a host off. Its cable is in: who was connected is told."""
        self.mend(name)
        # First whoever brought the process there: it has to take note of its end.
        super().kill(name)
        self._hosts.pop(name).end()

    def end(self) -> None:
        """Switch all of them off."""
        for name in list(self.processes):
            super().kill(name)
        for host in [*self._hosts.values(), self._hub]:
            host.end()


def _enter(network: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(network, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def hosts(folder: Path) -> Iterator[Hosts]:
    """A scheduler, and a host for the client, which this thread is on; all gone at the end."""
    started = Hosts(folder)
    try:
        started.start()
        with started.at("client"):
            yield started
    finally:
        started.end()
