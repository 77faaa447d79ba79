"""Files: one that is open for reading is opened again where it arrives, at the same place. A standard stream is the
standard stream of wherever it is.

The path is asked of the kernel (`/proc/self/fd`), so it holds after a change of directory or a renaming, and what is
opened is the very file: another one of that name is an error. A file that is open for writing stays: two processes that
write at places of their own would write over each other.
"""

from __future__ import annotations

import gc
import io
import os
import stat
import sys
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["reduce_file"]

_KINDS = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)
_STANDARD = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def reduce_file(file: Any) -> Any:
    """An open file, or a standard stream."""
    for name in _STANDARD:
        if file is getattr(sys, name, None):
            return getattr, (sys, name)
    kind = type(file)
    if kind not in _KINDS:
        return NotImplemented
    if file.closed:
        return _closed, (kind is io.TextIOWrapper,)
    if file.writable():
        raise _refusal(file, "open for writing: open it in the task, or send its path")
    try:
        fd = file.fileno()
        position = file.tell()
    except io.UnsupportedOperation as error:
        raise _refusal(file, f"{error}: it is no file on disk") from error
    except OSError as error:
        raise _refusal(file, f"{error}: while it is iterated over, nobody knows where it is") from error
    path, status = os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(file, "no file on disk")
    if not _is_at(path, status):
        raise _refusal(file, f"{path.removesuffix(' (deleted)')} was deleted, so it can't be opened elsewhere")
    text = (file.encoding, file.errors, _newline(file)) if kind is io.TextIOWrapper else None
    return _reopen, (path, (status.st_dev, status.st_ino), position, 0 if kind is io.FileIO else -1, text)


def _refusal(file: Any, reason: str) -> TypeError:
    return TypeError(f"cannot pickle {type(file).__name__!r} object: {reason}")


def _is_at(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except OSError:
        return False


def _newline(file: io.TextIOWrapper) -> str | None:
    """How the file was told to treat the ends of lines. It has no attribute for that: its decoder shows it."""
    for part in gc.get_referents(file):
        if isinstance(part, io.IncrementalNewlineDecoder):
            state = part.getstate()
            part.reset()
            translated = part.decode("\r\n".encode(file.encoding), True) == "\n"
            part.setstate(state)
            return None if translated else ""
    return "\n"


def _reopen(path: str, which: tuple[int, int], position: int, buffering: int, text: Any) -> Any:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) != which:
        os.close(fd)
        raise FileNotFoundError(f"{path} was replaced by another file after it was sent")
    # The user closes the file that was sent; this one is nobody's to close, and goes without a ResourceWarning.
    raw = io.FileIO(fd, closefd=False)
    weakref.finalize(raw, os.close, fd).atexit = False
    raw.name = path
    if text is None:
        file: Any = raw if buffering == 0 else io.BufferedReader(raw)
    else:
        encoding, errors, newline = text
        file = io.TextIOWrapper(io.BufferedReader(raw), encoding, errors, newline)
    file.seek(position)
    return file


def _closed(text: bool) -> Any:
    file: Any = io.TextIOWrapper(io.BytesIO()) if text else io.BytesIO()
    file.close()
    return file
