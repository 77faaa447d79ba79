"""Per-pixel features of photographs at several scales: the work that ``shoal demo`` does.

For each colour channel and each scale sigma a pixel gets four features, as a pixel classifier would be fed with:

1. the channel, smoothed by a Gaussian of that sigma;
2. the length of its gradient, times sigma (edges);
3. and 4. the two eigenvalues of its Hessian, times sigma squared (blobs and ridges, bright or dark).

Each is scaled by a fixed gain to a byte. Nothing depends on the rest of the photograph but the rows within reach of the
Gaussian, so that a photograph cut into bands gives the very same bytes as the whole.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data

SIGMAS = (1.0, 2.0, 4.0, 8.0)
CHANNELS = 3
PER_SCALE = 4
FEATURES = CHANNELS * len(SIGMAS) * PER_SCALE
"""Features, and bytes, of one pixel."""

BAND_ROWS = 64
"""Rows of a task: enough tasks for many cores, and a band's features still fit a core's cache."""

# Where a Gaussian's tail is cut, in sigmas, and the rows that two central differences reach beyond a band.
TRUNCATE = 3.0
DIFFERENCES = 2

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def photographs() -> list[Bytes]:
    """Returns the colour photographs inside scikit-image's wheel, 4.8 million pixels; nothing is downloaded."""
    untyped: Any = data
    left, right, _ = untyped.stereo_motorcycle()
    single = (
        untyped.retina,
        untyped.hubble_deep_field,
        untyped.rocket,
        untyped.astronaut,
        untyped.immunohistochemistry,
        untyped.coffee,
        untyped.chelsea,
    )
    return [np.ascontiguousarray(photo) for photo in (*(load() for load in single), left, right)]


def collection(size: int) -> list[Bytes]:
    """Returns photographs whose features fill at least `size` bytes, and no more than a row above it.

    The last one is cut to the rows that are needed. When all have been used they come again, turned by a quarter.

    Raises:
        ValueError: if `size` is not positive.
    """
    if size <= 0:
        raise ValueError(f"size must be a positive number of bytes, not {size}")
    chosen: list[Bytes] = []
    wanted = math.ceil(size / FEATURES)
    originals = photographs()
    for turn in range(wanted):
        for photo in originals:
            turned = np.ascontiguousarray(np.rot90(photo, turn))
            height, width = turned.shape[:2]
            rows = min(height, math.ceil(wanted / width))
            chosen.append(turned[:rows])
            wanted -= rows * width
            if wanted <= 0:
                return chosen
    raise AssertionError("unreachable: every turn takes pixels off what is wanted")


@dataclass(frozen=True)
class Band:
    """Some rows of one photograph, and where their pixels lie in the array of all features."""

    photo: int
    first: int
    last: int
    pixels: slice


def bands(photos: list[Bytes], rows: int = BAND_ROWS) -> Iterator[Band]:
    """Yields the bands of at most `rows` rows that cover `photos`, in order."""
    start = 0
    for number, photo in enumerate(photos):
        height, width = photo.shape[:2]
        for first in range(0, height, rows):
            last = min(first + rows, height)
            stop = start + (last - first) * width
            yield Band(number, first, last, slice(start, stop))
            start = stop


def features(photo: Bytes, first: int, last: int, out: NDArray[Any]) -> None:
    """Writes the features of rows `first` to `last` (exclusive) of `photo` to `out`.

    `out` has a row for each pixel and a column for each feature:

        out = np.empty((height * width, FEATURES), np.uint8)
        features(photo, 0, height, out)

    Raises:
        ValueError: if the photograph has no such rows, or `out` has another shape, type or layout.
    """
    height, width = photo.shape[:2]
    if not 0 <= first < last <= height:
        raise ValueError(f"first and last must lie within its {height} rows, not be {first} and {last}")
    shape = ((last - first) * width, FEATURES)
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out must be a C-contiguous uint8 array of shape {shape}, not {out.dtype} of {out.shape}")
    planes = np.moveaxis(out.reshape(last - first, width, FEATURES), -1, 0)
    # The rows that differences need above and below; none beyond the edge of the photograph.
    top, bottom = max(first - DIFFERENCES, 0), min(last + DIFFERENCES, height)
    band = slice(first - top, last - top)
    column = 0
    for channel in range(CHANNELS):
        for sigma in SIGMAS:
            smoothed = _smooth(photo[:, :, channel], sigma, top, bottom)
            for plane in _of_one_scale(smoothed, sigma):
                planes[column] = plane[band]
                column += 1


def _smooth(channel: Bytes, sigma: float, top: int, bottom: int) -> Floats:
    """Returns rows `top` to `bottom` of the channel, smoothed.

    Down the columns first: only that pass needs the halo of rows around, which is then cut off.
    """
    reach = int(TRUNCATE * sigma + 0.5)
    above, below = max(top - reach, 0), min(bottom + reach, len(channel))
    rows = channel[above:below].astype(np.float32)
    rows = ndimage.gaussian_filter1d(rows, sigma, axis=0, truncate=TRUNCATE)[top - above : bottom - above]
    smoothed: Floats = ndimage.gaussian_filter1d(rows, sigma, axis=1, truncate=TRUNCATE)
    return smoothed


def _of_one_scale(smoothed: Floats, sigma: float) -> Iterator[Bytes]:
    """Yields the four features of a smoothed channel.

    Only operations that IEEE 754 rounds exactly (no hypot, none fused), so that it doesn't matter where a band starts.
    """
    scale = np.float32(sigma)
    down, across = np.gradient(smoothed)
    down_down, down_across = np.gradient(down)
    across_across = np.gradient(across, axis=1)
    half_sum = (down_down + across_across) / 2
    half_difference = (down_down - across_across) / 2
    root = np.sqrt(half_difference * half_difference + down_across * down_across)

    yield _to_bytes(smoothed)
    yield _to_bytes(np.sqrt(down * down + across * across) * scale)
    yield _to_bytes((half_sum + root) * (scale * scale) + 128)
    yield _to_bytes((half_sum - root) * (scale * scale) + 128)


def _to_bytes(values: Floats) -> Bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
