"""Bars as those of `tqdm.notebook`, that go anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tqdm.notebook import tqdm as _ordinary

from shoal.progress.bar import Bar

__all__ = ["tqdm", "trange"]

T = TypeVar("T")

if TYPE_CHECKING:
    _Base = _ordinary
else:
    _Base = {T: _ordinary}


class tqdm(Bar[T], _Base[T]):
    """A bar as `shoal.tqdm`, with the looks of `tqdm.notebook`."""

    kind = "notebook"


def trange(*args: int, **kwargs: Any) -> tqdm[int]:
    """A shortcut for `tqdm(range(*args), **kwargs)`."""
    return tqdm(range(*args), **kwargs)
