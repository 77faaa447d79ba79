"""Numbers and tables, as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# Functions that are named of those that run.
_FUNCTIONS = 3


def seconds(value: float) -> str:
    """A time with the unit that fits: "1.23 s", "45 ms", "6.7 µs", "0"."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9)):
        scaled = value * factor
        if scaled >= 0.9995:
            return f"{scaled:.3g} {unit}" if scaled < 999.5 else f"{scaled:.0f} {unit}"
    return "0"


def size(count: float) -> str:
    """Bytes with the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def name_of(function: object) -> str:
    """How a function is called in messages; a `functools.partial` as what it calls. As the engine calls it."""
    kind = type(function).__qualname__
    name = getattr(function, "__qualname__", None)
    if name is None and kind == "partial":
        name = getattr(getattr(function, "func", None), "__qualname__", None)
    return name if isinstance(name, str) else kind


def at(task: str | None, taken: float) -> tuple[str, str]:
    """Cells of a table that tell what a worker is at, and for how long."""
    return ("", "") if task is None else (task or "?", seconds(taken))


def at_task(name: str, taken: float) -> str:
    """How a worker's state goes on if it is at a task: " with resize for 4.2 ms"."""
    return f"{f' with {name}' if name else ''} for {seconds(taken)}"


def running(tasks: Iterable[str], queued: int) -> str:
    """What a pool is at, to go behind its name: ": 2 × resize, load, 12 queued"; "" if it is at nothing."""
    counts: dict[str, int] = {}
    for task in tasks:
        name = task or "a task"
        counts[name] = counts.get(name, 0) + 1
    parts = [name if count == 1 else f"{count} × {name}" for name, count in counts.items()]
    if len(parts) > _FUNCTIONS:
        parts[_FUNCTIONS:] = [f"{sum(list(counts.values())[_FUNCTIONS:])} more"]
    if queued:
        parts.append(f"{queued:,} queued")
    return f": {', '.join(parts)}" if parts else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
