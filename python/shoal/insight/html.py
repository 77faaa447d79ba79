"""What a notebook shows of pools, arrays and reports: one look for all, short and cheap, everything escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from shoal._text import at, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal.arrays import SharedArray
    from shoal.insight.stats import PoolStats

__all__ = ["array", "cluster", "paragraph", "pool", "table"]

_STATES = {"RUN": "running", "CLOSE": "closed", "TERMINATE": "terminated"}
_OF_WORKERS = ("busy", "unresponsive", "stopped", "idle", "resting", "starting", "gone")
# Workers of a pool that have a line of their own.
_WORKERS = 8
# Items of an array that are shown, and the bytes of one that is worth a look.
_ITEMS = 24
_ITEM_BYTES = 256


def paragraph(text: str) -> str:
    """A line of text."""
    return f"<p>{escape(text)}</p>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under its caption."""
    return f"<table>{_caption(caption)}<thead>{_row('th', head)}</thead>{_body(rows)}</table>"


def pool(name: str, state: str, stats: PoolStats) -> str:
    """A pool or an executor: what it and its first workers are at."""
    count = Counter(worker.state for worker in stats.workers)
    of_them = ", ".join(f"{count[state]} {state}" for state in _OF_WORKERS if count[state])
    under_way = stats.outstanding - stats.queued
    caption = _summary(name, state, of_them, stats.queued, under_way)
    head = ("worker", "pid", "state", "task", "for", "tasks", "used")
    rows: list[tuple[str, ...]] = [
        (*each._place, *at(each.task, each.task_seconds), f"{each.tasks:,}", f"{each.used:.0%}")
        for each in stats.workers[:_WORKERS]
    ]
    if (more := stats.workers[_WORKERS:]) != ():
        rows.append((f"{len(more)} more", *[""] * 4, f"{sum(each.tasks for each in more):,}", ""))
    return table(caption, head, rows)


def cluster(name: str, state: str, where: str, queued: int, unfinished: int) -> str:
    """A pool on a cluster. What its workers are at only their nodes know: asking all of them may take a while."""
    return paragraph(_summary(name, state, where, queued, unfinished - queued))


def _summary(name: str, state: str, workers: str, queued: int, under_way: int) -> str:
    # In a fork of the client there are none to tell of.
    who = f": {workers}" if workers else ""
    return f"{name}, {_STATES[state]}{who}; {queued:,} tasks queued, {under_way:,} under way"


def array(shown: SharedArray) -> str:
    """An array: shape, dtype, size, where it is, and a few of its items."""
    facts = [
        ("shape", str(shown.shape)),
        ("dtype", str(shown.dtype)),
        ("size", size(shown.nbytes)),
        ("where", _where(shown)),
    ]
    rows = "".join(f"<tr><th>{name}</th><td>{escape(fact)}</td></tr>" for name, fact in facts)
    return f"<table>{_caption(type(shown).__name__)}<tbody>{rows}</tbody></table>{_preview(shown)}"


def _where(shown: SharedArray) -> str:
    block: Any = shown._block
    if block is None:
        return "ordinary memory"
    if (path := getattr(block, "path", None)) is not None:
        where = f"file {path}"
    elif shown.nbytes < block.nbytes // 2:
        # A part keeps all of it.
        where = f"shared memory, a part of {size(block.nbytes)}"
    else:
        where = "shared memory"
    return where if shown.flags.writeable else f"{where}, read-only"


def _preview(shown: SharedArray) -> str:
    """As numpy prints it, but of an array of many dimensions only the first plane: numpy shows the corners of all."""
    import numpy

    if shown.dtype.itemsize > _ITEM_BYTES:
        return ""
    items = shown.view(numpy.ndarray)
    first = ""
    if items.ndim > 2 and items.size:
        first = f"[{'0, ' * (items.ndim - 2)}…]\n"
        items = items[(0,) * (items.ndim - 2)]
    return f"<pre>{escape(first + numpy.array2string(items, threshold=_ITEMS, edgeitems=2))}</pre>"


def _caption(text: str) -> str:
    return f"<caption>{escape(text)}</caption>"


def _body(rows: Iterable[Sequence[str]]) -> str:
    return f"<tbody>{''.join(_row('td', row) for row in rows)}</tbody>"


def _row(kind: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"
