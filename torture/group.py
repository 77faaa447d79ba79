"""A control group with little memory, for a life at the edge of it: the kernel kills there who takes more."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Group:
    """A control group.

    Attributes:
        path: its directory.
        events: the file in it that counts the kernel's kills.
    """

    path: Path
    events: str

    @staticmethod
    def make(name: str, limit: int) -> Group | None:
        """A new one of that name, with so many bytes of memory; None where this process may not make any."""
        # Version 2 where it rules memory, else version 1.
        if (ROOT / "cgroup.controllers").exists():
            group, most = Group(ROOT / name, "memory.events"), "memory.max"
        else:
            group, most = Group(ROOT / "memory" / name, "memory.oom_control"), "memory.limit_in_bytes"
        # One that is left of a process which was killed, and had this one's number.
        with contextlib.suppress(OSError):
            group.path.rmdir()
        try:
            group.path.mkdir()
        except OSError:
            return None
        try:
            (group.path / most).write_text(str(limit))
            group.kills()
        except OSError:
            # Memory is not shared out here.
            group.path.rmdir()
            return None
        return group

    def enter(self) -> None:
        """This process, and all that it starts from now on, belong to it."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self) -> int:
        """How many of its processes the kernel has killed, as memory had run out."""
        words = (self.path / self.events).read_text().split()
        return int(words[words.index("oom_kill") + 1])

    def remove(self, patience: float) -> None:
        """All its processes have ended, or are about to.

        Raises:
            OSError: they have not, after so many seconds.
        """
        until = time.monotonic() + patience
        while True:
            try:
                return self.path.rmdir()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
