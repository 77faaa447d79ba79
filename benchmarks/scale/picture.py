"""The picture of docs/scale.md: how busy Dask's scheduler and shoal's client can keep clusters of many sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Utilisation of so many nodes by tasks of so many seconds.
Utilisation = Callable[[int, float], float]


def draw(path: Path, panels: Mapping[str, Utilisation], durations: Sequence[float], most: int) -> None:
    """A panel for each hub, a line for each duration, up to `most` nodes."""
    nodes = np.unique(np.geomspace(1, most, 60).astype(int))
    # Text stays text, and the same picture is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "shoal"}):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True)
        for ax, (name, utilisation) in zip(axes, panels.items(), strict=True):
            for duration in durations:
                busy = [100 * utilisation(int(count), duration) for count in nodes]
                ax.plot(nodes, busy, label=f"{duration:g} s" if duration >= 1 else f"{duration * 1000:g} ms")
            ax.set(title=name, xlabel="nodes of 64 cores", xscale="log", xlim=(1, most), ylim=(0, 102))
            ax.grid(alpha=0.3)
        axes[0].set_ylabel("cores busy, %")
        axes[-1].legend(title="tasks of", loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
