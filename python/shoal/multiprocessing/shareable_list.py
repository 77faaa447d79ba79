"""`ShareableList`: a list of fixed length in a `SharedMemory`, with the layout of the standard library's.

What reads and writes items is inherited, so that plain multiprocessing can attach to one; only the segment that it
lies in is another.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from shoal.multiprocessing.originals import original
from shoal.multiprocessing.shared_memory import SharedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_original: Any = original("multiprocessing.shared_memory")

__all__ = ["ShareableList"]


class ShareableList(_original.ShareableList):  # type: ignore[misc]
    """A list whose items can be changed, but not their number. As `multiprocessing.shared_memory.ShareableList`.

    Args:
        sequence: the items: ints of 64 bits, floats, bools, strings, bytes, None. Default: None, to attach to the list
            `name`, or an empty one if there is no name either.
        name: the name of the segment.

    Raises:
        KeyError: an item is of another type.
        FileExistsError, FileNotFoundError: as for `SharedMemory`.

    Example:
        >>> values = ShareableList([1, 2.5, "three"])
        >>> values[2]
        'three'
        >>> values.shm.unlink()
    """

    def __init__(self, sequence: Iterable[Any] | None = None, *, name: str | None = None) -> None:
        if sequence is None and name is not None:
            self.shm = SharedMemory(name)
            self._list_len = len(self)
            self._allocated_offsets = list(struct.unpack_from(self._format_size_metainfo, self._bytes, 8))
            return
        items = [] if sequence is None else list(sequence)
        formats = [self._format_of(item) for item in items]
        self._list_len = len(items)
        self._allocated_offsets = [0]
        for code in formats:
            size = int(code[:-1]) if code.endswith("s") else self._alignment
            self._allocated_offsets.append(self._allocated_offsets[-1] + size)
        end = self._offset_back_transform_codes + len(items)
        self.shm = SharedMemory(name, create=True, size=end)
        struct.pack_into("q" + self._format_size_metainfo, self._bytes, 0, len(items), *self._allocated_offsets)
        for position, (code, item) in enumerate(zip(formats, items, strict=True)):
            self._set_packing_format_and_transform(position, code, item)
            data = item.encode() if isinstance(item, str) else item
            struct.pack_into(code, self._bytes, self._offset_data_start + self._allocated_offsets[position], data)

    @property
    def _bytes(self) -> Any:
        return self.shm.buf

    def _format_of(self, item: Any) -> str:
        code: str = self._types_mapping[type(item)]
        if not isinstance(item, (str, bytes)):
            return code
        # As the standard library has it: by the number of characters, not of bytes.
        room: int = self._alignment * (len(item) // self._alignment + 1)
        return code % room


# Where its users find it: a worker that only attaches does not need this module.
ShareableList.__module__ = SharedMemory.__module__
