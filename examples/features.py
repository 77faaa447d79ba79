"""Features of photographs in one shared array, by all cores, and a reset of millions of them under a lock.

    pip install 'shoal[demo]'
    python examples/features.py

The array, the lock and the bar are made here and passed as arguments. Nothing is named, inherited or cleaned up.
"""

import numpy as np

import shoal
from shoal.cli.features import FEATURES, bands, features, photographs

POSITIONS = 5_000_000
PER_TASK = 10_000


def compute(photo, band, array, bar):
    """One task of the first step: some rows of one photograph."""
    features(photo, band.first, band.last, array[band.pixels])
    bar.update(band.pixels.stop - band.pixels.start)


def reset(positions, array, lock, bar):
    """One task of the second step: 10 000 positions anywhere in the flat array."""
    with lock:
        array.reshape(-1)[positions] = 0
    bar.update(len(positions))


photos = photographs()
pixels = sum(photo[:, :, 0].size for photo in photos)
array = shoal.empty((pixels, FEATURES), np.uint8)
lock = shoal.Lock()

with shoal.Pool() as pool:
    bar = shoal.tqdm(total=pixels, desc="features", unit="px", unit_scale=True)
    pool.starmap(compute, [(photos[band.photo], band, array, bar) for band in bands(photos)], chunksize=1)
    bar.close()

    positions = np.random.default_rng(0).integers(0, array.size, POSITIONS)
    chunks = [positions[start : start + PER_TASK] for start in range(0, POSITIONS, PER_TASK)]
    bar = shoal.tqdm(total=POSITIONS, desc="reset", unit_scale=True)
    pool.starmap(reset, [(chunk, array, lock, bar) for chunk in chunks])
    bar.close()

zero = np.count_nonzero(array.reshape(-1)[positions] == 0)
print(f"{array.nbytes / 1e6:.0f} MB of features, {zero:,} of {POSITIONS:,} positions are 0, mean is {array.mean():.2f}")
