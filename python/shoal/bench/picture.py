"""A run as a picture: a panel for each figure, a bar for each tool."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .harness import Row, peer_of
from .peers import PEERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
# Colours that people with colour-blindness tell apart (Paul Tol's bright and muted schemes); grey for other tools.
_COLOURS = dict(
    zip(
        PEERS,
        ("#4477aa", "#ee6677", "#aa3377", "#228833", "#ccbb44", "#66ccee", "#882255", "#44aa99", "#999933"),
        strict=True,
    )
)
# Bars that differ more than that are drawn to a logarithmic scale, or the short ones could not be seen.
_FAR_APART = 30


def draw(rows: Sequence[Row], facts: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes the picture to `path`, as PNG, SVG or what else its name ends with.

    Args:
        rows: the figures of a run. Those without samples are left out.
        facts: what `shoal.bench.report.machine()` told of the machine.
        path: the file.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: no row has samples, or the path ends with a format that matplotlib has not.
    """
    import matplotlib

    # Not pyplot: it would take a window and keep the figure for ever.
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.samples]
    if not rows:
        raise ValueError("there is nothing to draw: no figure has samples")
    lines = -(-len(rows) // COLUMNS)
    columns = min(COLUMNS, len(rows))
    tallest = max(len(row.samples) for row in rows)
    figure = Figure(figsize=(5.2 * columns, (0.9 + 0.24 * tallest) * lines + 0.6), layout="constrained")
    title = f"{facts['cpu']}, {facts['cpus']} CPUs; Python {facts['python']}, shoal {facts['shoal']}; "
    figure.suptitle(title + f"{facts['workers']} workers", fontsize=10)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel, row, name in zip(panels, rows, titles(rows), strict=False):
        _panel(panel, row, name)
    for panel in panels[len(rows) :]:
        panel.set_axis_off()
    # An SVG has its text as text: to be found and copied, and a fifth of the size.
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(os.fspath(path))


def titles(rows: Sequence[Row]) -> Iterator[str]:
    """A panel stands alone: a title that goes on from another one is told together with it."""
    first = ""
    for row in rows:
        title = row.figure.title
        if title.startswith(" "):
            yield f"{first}: {title.strip()}"
        else:
            first = title
            yield title


def _panel(axes: Axes, row: Row, title: str) -> None:
    """One figure, the best tool above."""
    medians = row.medians
    values = list(medians.values())
    bars = axes.barh(list(medians), values, color=[_COLOURS.get(peer_of(name), "#bbbbbb") for name in medians])
    axes.bar_label(bars, [row.figure.text(value) for value in values], padding=3, fontsize=7)
    axes.invert_yaxis()
    if min(values) > 0 and max(values) / min(values) > _FAR_APART:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 8)
    else:
        axes.margins(x=0.3)
    axes.set_title(textwrap.fill(title, 64), fontsize=8, loc="left")
    axes.set_xlabel(f"{row.figure.unit}, {'more' if row.figure.higher_is_better else 'less'} is better", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
