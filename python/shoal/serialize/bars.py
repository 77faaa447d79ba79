"""How the bars of tqdm travel: each becomes one of `shoal.tqdm` when it does, and the original moves.

Pickle refuses a bar for the file that it draws on; or sends a disabled one as a heap of attributes, which would count
for itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["reduce_bar"]


def reduce_bar(bar: Any) -> Any:
    """An ordinary bar, of any class of tqdm."""
    from shoal.progress.travel import adopt

    return adopt(bar).__reduce__()
