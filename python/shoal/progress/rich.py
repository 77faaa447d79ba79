"""Bars as those of `tqdm.rich`, that go anywhere."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.progress.bar import tqdm, trange
else:
    from shoal.progress.kinds import of_kind

    tqdm, trange = of_kind("rich")

__all__ = ["tqdm", "trange"]
