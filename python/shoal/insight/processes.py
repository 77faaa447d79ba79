"""The processes of this user that share memory through shoal, as the kernel tells of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["POOL", "ROSTER", "SEGMENT", "File", "Process", "find", "printable"]

# What the engine calls its anonymous files, as /proc shows it: of a pool, of the list of a domain's members, of data.
POOL, ROSTER, SEGMENT = (f"/memfd:{name} (deleted)" for name in ("shoal-pool", "shoal-roster", "shoal"))

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class File:
    """A file that a process has open.

    Attributes:
        name: as /proc shows it.
        path: where it can be opened.
        key: tells it from all others: two processes with the same key have the same file.
    """

    name: str
    path: str
    key: tuple[int, int]


@dataclass(frozen=True)
class Process:
    """A process at a moment.

    Attributes:
        pid: its number here.
        inner: its number as it knows it: another one if it is in a container.
        began: when, in the kernel's ticks: with the pid it names the process for good.
        stopped: by a signal.
        cpu_seconds: that it has used so far.
        private_bytes: memory that it has to itself.
        files: what it has open of shoal.
    """

    pid: int
    inner: int
    began: int
    stopped: bool
    cpu_seconds: float
    private_bytes: int
    files: tuple[File, ...]

    def named(self, name: str) -> Iterator[File]:
        """Its files of that name."""
        return (file for file in self.files if file.name == name)

    @property
    def command(self) -> str:
        """What it was started with; "" if it has ended."""
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
        except OSError:
            return ""
        return printable(" ".join(" ".join(words).split()))


def find() -> dict[int, Process]:
    """The processes of this user that have something of shoal open, by pid."""
    me = os.geteuid()
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid == me and (files := tuple(_files(name))):
                found[int(name)] = _process(int(name), files)
        except OSError:
            # It has ended meanwhile, or does not let itself be looked into.
            continue
    return found


def _files(pid: str) -> Iterator[File]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            name = os.readlink(path)
            if name in (POOL, ROSTER, SEGMENT):
                status = os.stat(path)
                yield File(name, path, (status.st_dev, status.st_ino))
        except FileNotFoundError:
            # It was closed meanwhile.
            continue


def _process(pid: int, files: tuple[File, ...]) -> Process:
    inner = pid
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("NSpid:"):
                inner = int(line.split()[-1])
    with open(f"/proc/{pid}/stat") as stat:
        # The name, in parentheses, may hold anything. Behind it: the state; the times are the 12th, 13th and 20th.
        fields = stat.read().rpartition(")")[2].split()
    with open(f"/proc/{pid}/statm") as statm:
        _, resident, shared, *_ = map(int, statm.read().split())
    return Process(
        pid=pid,
        inner=inner,
        began=int(fields[19]),
        stopped=fields[0] in "Tt",
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICK,
        private_bytes=(resident - shared) * _PAGE,
        files=files,
    )


def printable(text: str) -> str:
    """Without what a terminal would take for a command: it is what another process says."""
    return "".join(character if character.isprintable() else "?" for character in text)
