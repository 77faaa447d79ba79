"""The guard: a process that removes what a program has left in /dev/shm, when it ends in whatever way.

Run as `python guard.py PID LEDGER`, with the descriptors of the program and of its ledger. It sleeps until the program
has ended. It imports nothing of shoal: it is started while the program waits, and stays for as long as it runs.
"""

import _signal as signal  # type: ignore[import-not-found]  # the module around it takes longer to import than all the rest
import os
import select

__all__ = ["records", "settle"]

_DIRECTORY = "/dev/shm"


def records(ledger: int) -> list[tuple[str, int, int]]:
    """The name, device and inode of each segment in the ledger. What can't be read was not written to its end."""
    found = []
    for line in os.pread(ledger, os.fstat(ledger).st_size, 0).split(b"\0"):
        device, _, rest = line.partition(b" ")
        inode, _, name = rest.partition(b" ")
        if device.isdigit() and inode.isdigit() and name:
            found.append((os.fsdecode(name), int(device), int(inode)))
    return found


def is_there(name: str, device: int, inode: int) -> bool:
    """Whether that very segment still has its name: another may have got it since."""
    try:
        status = os.stat(_DIRECTORY + name)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (device, inode)


def settle(ledger: int) -> None:
    """Remove the segments in the ledger that are still there."""
    for name, device, inode in records(ledger):
        if is_there(name, device, inode):
            try:
                os.unlink(_DIRECTORY + name)
            except FileNotFoundError:
                pass  # somebody else was faster
    os.ftruncate(ledger, 0)


def main(program: int, ledger: int) -> None:
    """Wait for the end of the program and settle its ledger."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    poll = select.poll()
    poll.register(program, select.POLLIN)
    poll.poll()
    settle(ledger)


if __name__ == "__main__":
    import sys

    main(int(sys.argv[1]), int(sys.argv[2]))
