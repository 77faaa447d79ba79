"""What a program and its processes take of the machine: what has to be as it was when the torture is over."""

from __future__ import annotations

import contextlib
import os
from dataclasses import astuple, dataclass, fields

import psutil

import shoal


@dataclass(frozen=True)
class Balance:
    """A program's account at one moment.

    Attributes:
        processes: this one and all that descend from it.
        descriptors: those of this process and its zygotes, without the one that each segment has here.
        threads: of this process.
        private: KiB of memory that this process has to itself.
        zygote: KiB of memory that its zygote has to itself.
        segments: pieces of shared memory that this process has mapped.
        shared: KiB in them.
        leases: holds on shared blocks.
    """

    processes: int
    descriptors: int
    threads: int
    private: int
    zygote: int
    segments: int
    shared: int
    leases: int

    def __str__(self) -> str:
        return "".join(f"  {value:>{len(name)}}" for name, value in zip(NAMES, astuple(self), strict=True))


NAMES = tuple(field.name for field in fields(Balance))
HEADER = "".join(f"  {name}" for name in NAMES)


def balance() -> Balance:
    """What this program takes now."""
    while True:
        # A zygote may end while it is looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
            return _balance()


def _balance() -> Balance:
    me = psutil.Process()
    # A worker is a fork of the zygote, so the same by name, but no child of this process.
    zygotes = [child.pid for child in me.children() if _is_zygote(child)]
    used = shoal.memory()
    return Balance(
        processes=1 + len(me.children(recursive=True)),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (me.pid, *zygotes)) - used.segments,
        threads=me.num_threads(),
        private=_private(me.pid),
        zygote=sum(map(_private, zygotes)),
        segments=used.segments,
        shared=used.bytes // 1024,
        leases=used.leases,
    )


def opened() -> str:
    """What the descriptors of this process and its zygotes are of, a line for each process."""
    lines = []
    for pid in (os.getpid(), *(child.pid for child in psutil.Process().children() if _is_zygote(child))):
        links = []
        # The process may have ended, and the directory's own descriptor is gone by the time it is looked at.
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    links.append(f"{descriptor}: {os.readlink(f'/proc/{pid}/fd/{descriptor}')}")
        lines.append(f"{pid} has {', '.join(links)}")
    return "\n".join(lines)


def _is_zygote(process: psutil.Process) -> bool:
    try:
        return any("shoal._zygote" in argument for argument in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _private(pid: int) -> int:
    """KiB of anonymous memory of a process: its own, or a share of what its forks still have in common with it."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
