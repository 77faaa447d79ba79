"""What a bar shows, in shared memory: its count, and a page with everything else.

The count is a `RawTally`. The page holds the latest description, postfix, total… as one pickle, which any process may
replace. It has two halves, of which one is valid:

    0   version          its lowest bit says which half is valid
    8   refreshes        changes when somebody wants the bar redrawn; without a lock, for all that matters is change
    16  half 0           length (4 bytes), pickle
    …   half 1           likewise

Who changes something holds the lock, writes the half that is not valid, and then the version: so a writer that dies
leaves what was there before, and the lock passes on. Nothing piles up for a reader: only the latest counts.
"""

from __future__ import annotations

import _pickle as pickle
import os
import struct

from shoal._engine import Block, RawTally
from shoal.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Shared"]

_NUMBER = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
_HEAD = 16
_HALF = 4088
_SIZE = _HEAD + 2 * _HALF

# Texts are cut to so many characters if they don't fit. No terminal is that wide.
_LONGEST = 512

# How long to wait for the lock, in seconds. It is held for microseconds, unless its holder is stopped.
PATIENCE = 1.0


class Shared:
    """What a bar shows, seen and changed by every process that has the bar.

    Args:
        name: what the bar is known by, everywhere.
        tally: its count.
        lock: held by who changes the page.
        page: everything else.
    """

    __slots__ = ("_fields", "_page", "_seen", "_view", "lock", "name", "tally")

    def __init__(self, name: bytes, tally: RawTally, lock: Lock, page: Block) -> None:
        self.name, self.tally, self.lock, self._page = name, tally, lock, page
        self._view = memoryview(page)  # type: ignore[arg-type]  # a buffer, which stubs can't say before Python 3.12
        self._seen = -1
        self._fields: dict[str, Any] = {}

    @classmethod
    def make(cls, tally: RawTally, fields: dict[str, Any]) -> Shared:
        """A new one, that shows `fields`."""
        shared = cls(os.urandom(16), tally, Lock(), Block.allocate(_SIZE))
        shared.change(fields)
        return shared

    @property
    def parts(self) -> tuple[bytes, RawTally, Lock, Block]:
        """What it is made of again in another process."""
        return self.name, self.tally, self.lock, self._page

    @property
    def refreshes(self) -> int:
        """Another number each time that somebody has asked for the bar to be redrawn."""
        number: int = _NUMBER.unpack_from(self._view, 8)[0]
        return number

    def refresh(self) -> None:
        """Have the bar redrawn, though nothing has changed."""
        _NUMBER.pack_into(self._view, 8, self.refreshes + 1 & 0xFFFFFFFF)

    def news(self, patience: float = PATIENCE, into: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """All fields, if any has changed since this was asked last in this process; None if not, or not to be had now.

        Args:
            patience: how long to wait for somebody who is changing them, in seconds.
            into: where they are to be noted, while nobody else has the turn: a thread that is slower must not put older
                ones over them, nor another find them said and not noted yet.
        """
        if self.version == self._seen or not self.lock.acquire(timeout=patience):
            return None
        try:
            return self._read(into)
        finally:
            self.lock.release()

    def change(self, fields: dict[str, Any], into: dict[str, Any] | None = None) -> dict[str, Any]:
        """Change some fields. Returns all of them, with what others have changed; `into` as for `news`.

        Raises:
            ValueError: they are too large, though all texts were cut.
        """
        if not self.lock.acquire(timeout=PATIENCE):
            return fields  # who holds it is stopped: a look at the bar is not worth to stop, too
        try:
            now = {**self._read(), **fields}
            data = _fitting(now)
            version = self.version + 1
            at = _HEAD + (version & 1) * _HALF
            _LENGTH.pack_into(self._view, at, len(data))
            self._view[at + 4 : at + 4 + len(data)] = data
            _NUMBER.pack_into(self._view, 0, version)
            if into is not None:
                into.update(now)
            self._seen, self._fields = version, now
            return now
        finally:
            self.lock.release()

    @property
    def version(self) -> int:
        """How often it was changed."""
        version: int = _NUMBER.unpack_from(self._view, 0)[0]
        return version

    def _read(self, into: dict[str, Any] | None = None) -> dict[str, Any]:
        """The fields, for who holds the lock."""
        version = self.version
        if version != self._seen:
            at = _HEAD + (version & 1) * _HALF
            length = _LENGTH.unpack_from(self._view, at)[0]
            if length:
                self._fields = _fields_in(self._view[at + 4 : at + 4 + length]) or self._fields
            if into is not None:
                into.update(self._fields)
            self._seen = version
        return self._fields


def _fields_in(data: memoryview) -> dict[str, Any] | None:
    """What was pickled; None if somebody has written over it: a bar is not worth an error in who draws it."""
    try:
        fields = pickle.loads(data)
    except Exception:  # bytes of any kind raise any kind
        return None
    return fields if isinstance(fields, dict) else None


def _fitting(fields: dict[str, Any]) -> bytes:
    """The fields pickled, with texts that are too long cut."""
    data = pickle.dumps(fields, 5)
    longest = _LONGEST
    while len(data) > _HALF - 4 and longest:
        cut = {name: value[:longest] if isinstance(value, str) else value for name, value in fields.items()}
        data = pickle.dumps(cut, 5)
        longest //= 2
    if len(data) > _HALF - 4:
        raise ValueError(f"what a bar shows besides its count must fit into {_HALF - 4} bytes, but takes {len(data)}")
    return data
