"""The way to the screen of another process: questions and answers over a socket.

    4 bytes of length | pickle of (number, verb, arguments…)      there
    4 bytes of length | pickle of (number, problem or None)       back

An answer says that it is done: the bar is on the screen, the text is written. So what a task has printed stands there
before its result arrives. The end of the connection tells the screen that this process has ended, however it did.
"""

from __future__ import annotations

import _pickle as pickle  # the module around it takes several times as long to import
import _socket
import atexit
import os
import struct
import threading

from shoal.progress.door import Address, home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Line", "elsewhere", "line_to"]

# How long to wait for a screen, in seconds. It answers within a millisecond, unless its process is stopped, or holds
# the lock of the screen while it waits for this one: then what was asked for is done later, and this one goes on.
PATIENCE = 2.0

CREDENTIALS = struct.Struct("iII")  # of SO_PEERCRED: pid, uid, gid


class Line:
    """A connection to the screen at an address. One question at a time; made anew if the screen was closed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socket: _socket.socket | None = None
        self._turn = threading.RLock()
        self._asking = False
        self._number = 0
        self._answers = bytearray()

    def connect(self) -> bool:
        """Whether the screen can be reached."""
        with self._turn:
            return self._socket is not None or self._connect()

    def ask(self, verb: str, *arguments: Any) -> bool:
        """Have something done there, and wait until it is; a screen that is slow does it later. False: there is none.

        Raises:
            ShoalError: it can't be done, with the reason.
        """
        with self._turn:
            if self._asking:
                # By the finalizer of another bar, in the midst of a question. It does without: the screen looks at what
                # is in shared memory by itself, a little later.
                return False
            self._asking = True
            try:
                return self._ask(verb, arguments)
            finally:
                self._asking = False

    def leave(self) -> None:
        """Give the connection up. In the child of a fork it is the parent's, and so are the locks."""
        self._turn = threading.RLock()
        self._close()

    def _ask(self, verb: str, arguments: tuple[Any, ...]) -> bool:
        for _ in range(2):  # a screen that had nothing to show may have closed the connection
            if self._socket is None and not self._connect():
                return False
            self._number += 1
            try:
                self._send(pack((self._number, verb, *arguments)))
            except TimeoutError:
                return False  # it has not even listened to all of it, and what it has of it is void
            try:
                answered, problem = self._answer()
            except TimeoutError:
                return True  # the answer is left out when it comes
            if answered:
                if problem is not None:
                    from shoal.errors import ShoalError

                    raise ShoalError(f"can't be shown: {problem}")
                return True
            self._close()
        return False

    def _connect(self) -> bool:
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            socket.settimeout(PATIENCE)
            socket.connect(self.address.name)
            # Nobody else can have this name, unless its process has ended: and then anybody.
            peer = socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, CREDENTIALS.size)
            if CREDENTIALS.unpack(peer)[1] != os.geteuid():
                raise PermissionError
            socket.sendall(self.address.token)
        except OSError:
            socket.close()
            return False
        self._socket, self._answers = socket, bytearray()
        return True

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # there will be no answer
        except BaseException:
            self._close()  # half a question can't be taken back
            raise

    def _answer(self) -> tuple[bool, str | None]:
        """(whether there was one to the last question, the problem)."""
        assert self._socket is not None
        while True:
            for number, problem in unpack(self._answers):
                if number == self._number:
                    return True, problem
            try:
                more = self._socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return False, None
            self._answers += more

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def pack(message: tuple[Any, ...]) -> bytes:
    """A message, with its length before it."""
    data = pickle.dumps(message, 5)
    return len(data).to_bytes(4, "little") + data


def unpack(data: bytearray) -> list[Any]:
    """Takes the messages out that `data` begins with."""
    messages, at = [], 0
    while len(data) - at >= 4:
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            break
        messages.append(pickle.loads(data[at + 4 : end]))
        at = end
    del data[:at]
    return messages


_lines: dict[bytes, Line] = {}


def line_to(address: Address) -> Line:
    """The line to the screen at that address. There is one for each."""
    return _lines.get(address.name) or _lines.setdefault(address.name, Line(address))


def elsewhere() -> Line | None:
    """The line to the screen that shows what this process makes; None if that is its own, or can't be reached."""
    address = home()
    if address is None:
        return None
    line = line_to(address)
    return line if line.connect() else None


@atexit.register
def _leave_all() -> None:
    """At the end of the process, or in the child of a fork."""
    for line in _lines.values():
        line.leave()


os.register_at_fork(after_in_child=_leave_all)
