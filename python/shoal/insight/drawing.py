"""`shoal.timeline`: a trace as a picture."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from shoal.insight import chrome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoal.insight.trace import Trace

__all__ = ["timeline"]

# Inches: of the picture, of a worker's track in it, and the most that all tracks take.
_WIDTH, _TRACK, _TALLEST = 11.0, 0.32, 12.0
_AROUND = 2.6
# Functions that have a colour of their own; the others share one.
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
_OTHER = "#bbbbbb"
_DIED = "#000000"
_LEGEND: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "fontsize": "small", "frameon": False}
# Of what lies below, which is nobody's colour above.
_QUEUED, _MEMORY = "#555555", "#882255"
# The part of the picture's width that a task takes at least if it has an edge: a narrower one would be all edge.
_EDGED = 1 / 250


class _Bar(NamedTuple):
    track: tuple[int, int]
    begin: float
    length: float
    name: str
    end: str


def timeline(trace: Trace | str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw a trace: each worker's tasks over time, and below them how many tasks waited, and memory.

    Needs matplotlib: `pip install 'shoal[plots]'`.

    Args:
        trace: what `Pool.trace` gave, or a file that it wrote.
        path: where to save the picture; its ending tells the format, .png or .svg among others. None: nowhere.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: there is no task in it, or the file is no trace.
        OSError: a file can't be read or written.

    Example:
        >>> with shoal.Pool(2) as pool, pool.trace() as trace:
        ...     _ = pool.map(abs, range(1000))
        >>> figure = shoal.timeline(trace)
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        message = "shoal.timeline needs matplotlib: pip install 'shoal[plots]'"
        raise ModuleNotFoundError(message, name="matplotlib") from None
    events = _events(trace)
    bars = [
        _Bar((event["pid"], event["tid"]), event["ts"] / 1e6, event["dur"] / 1e6, event["name"], event["args"]["end"])
        for event in events
        if event["ph"] == "X"
    ]
    if not bars:
        raise ValueError("there is no task in the trace")
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    order = {track: place for place, track in enumerate(sorted(tracks))}
    height = _AROUND + min(_TRACK * len(order), _TALLEST)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    tasks, below = figure.subplots(2, 1, sharex=True, height_ratios=[max(height - _AROUND, 0.6), 1.1])
    colours = _colours(bars)
    # What is narrow has an edge of its own colour, or nobody would see it.
    edged = _EDGED * (max(bar.begin + bar.length for bar in bars) - min(bar.begin for bar in bars))
    for name in dict.fromkeys((*colours, "")):
        colour = colours.get(name, _OTHER)
        of_name = [bar for bar in bars if (bar.name if bar.name in colours else "") == name]
        for track, place in order.items():
            on_track = [bar for bar in of_name if bar.track == track]
            for edge, wide in ((colour, False), ("white", True)):
                spans = [(bar.begin, bar.length) for bar in on_track if (bar.length > edged) == wide]
                tasks.broken_barh(spans, (place - 0.4, 0.8), facecolor=colour, edgecolor=edge, linewidth=0.5)
    tasks.set_yticks(list(order.values()), [tracks[track] for track in order], fontsize="small")
    tasks.invert_yaxis()
    tasks.set_title(_title(bars, len(order)), loc="left", fontsize="medium")
    named = {name: tasks.plot([], [], color=colour, linewidth=6)[0] for name, colour in colours.items()}
    if died := [bar for bar in bars if bar.end == "died"]:
        ends, tracks_of = [bar.begin + bar.length for bar in died], [order[bar.track] for bar in died]
        named["its worker died"] = tasks.plot(ends, tracks_of, linestyle="", marker="x", color=_DIED)[0]
    # Named afterwards: matplotlib leaves out what begins with an underscore.
    legend = tasks.legend([*named.values()], [*map(str, range(len(named)))], **_LEGEND)
    for text, name in zip(legend.get_texts(), named, strict=True):
        text.set_text(name)
    _counters(below, events)
    below.set_xlabel("seconds")
    if path is not None:
        figure.savefig(os.fspath(path))
    return figure


def _events(trace: Trace | str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The events of a file, or of the file that would be written."""
    if isinstance(trace, (str, os.PathLike)):
        with open(trace, encoding="utf-8") as file:
            text = file.read()
    else:
        written = io.StringIO()
        chrome.write(written, trace.pools, trace._began)
        text = written.getvalue()
    try:
        events: list[dict[str, Any]] = json.loads(text)["traceEvents"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{os.fspath(trace)!r} is not a trace") from None  # type: ignore[arg-type]
    return events


def _counters(axes: Axes, events: list[dict[str, Any]]) -> None:
    """How many tasks waited, and memory, on two scales."""
    counters = [event for event in events if event["ph"] == "C"]
    depth = [(event["ts"] / 1e6, event["args"]["tasks"]) for event in counters if event["name"] == "queue depth"]
    axes.step([at for at, _ in depth], [tasks for _, tasks in depth], where="post", color=_QUEUED, linewidth=1)
    axes.set_ylabel("queued", color=_QUEUED)
    axes.set_ylim(bottom=0)
    memory = [(event["ts"] / 1e6, sum(event["args"].values()) / 1e6) for event in counters if event["name"] == "memory"]
    other = axes.twinx()
    other.plot([at for at, _ in memory], [held for _, held in memory], color=_MEMORY, linewidth=1)
    other.set_ylabel("memory, MB", color=_MEMORY)
    other.set_ylim(bottom=0)


def _title(bars: list[_Bar], tracks: int) -> str:
    wall = max(bar.begin + bar.length for bar in bars) - min(bar.begin for bar in bars)
    used = sum(bar.length for bar in bars) / (wall * tracks) if wall else 0.0
    return f"{len(bars):,} tasks on {tracks} workers, busy {used:.0%} of the time"


def _colours(bars: Iterable[_Bar]) -> dict[str, str]:
    times: dict[str, float] = {}
    for bar in bars:
        times[bar.name] = times.get(bar.name, 0.0) + bar.length
    longest = sorted(times, key=lambda name: times[name], reverse=True)
    return dict(zip(longest, _COLOURS, strict=False))
