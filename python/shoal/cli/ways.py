"""The job of ``shoal demo``, written three ways: numpy alone, multiprocessing as people write it, and shoal.

All three run the same kernel on the same bands; what differs is how the array, the lock and the bar reach a worker.
"""

import io
import multiprocessing
import sys
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import shared_memory
from threading import Thread
from time import perf_counter
from typing import Any, Self

import numpy as np
import tqdm
from numpy.typing import NDArray

import shoal

from .features import FEATURES, Band, Bytes, bands, collection, features

POSITIONS_PER_TASK = 10_000

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """What is to be done: features of `photos`, then a reset of `positions` in the flat array of them all."""

    photos: list[Bytes]
    positions: Positions
    per_pixel: int = FEATURES

    @classmethod
    def make(cls, size: int, positions: int) -> Self:
        """Returns a job whose array has at least `size` bytes; the positions are the same in every run."""
        photos = collection(size)
        flat = sum(photo[:, :, 0].size for photo in photos) * FEATURES
        return cls(photos, np.random.default_rng(0).integers(0, flat, positions))

    @cached_property
    def pixels(self) -> int:
        """Pixels of all photographs."""
        return sum(photo[:, :, 0].size for photo in self.photos)

    @property
    def size(self) -> int:
        """Bytes of the array of features."""
        return self.pixels * self.per_pixel

    @cached_property
    def bands(self) -> list[Band]:
        """The tasks of the first step."""
        return list(bands(self.photos))

    @cached_property
    def chunks(self) -> list[Positions]:
        """The tasks of the second step."""
        starts = range(0, self.positions.size, POSITIONS_PER_TASK)
        return [self.positions[start : start + POSITIONS_PER_TASK] for start in starts]


@dataclass(frozen=True)
class Times:
    """Seconds that each step took; `start` is None where there is nothing to start."""

    start: float | None
    features: float
    reset: float

    @property
    def total(self) -> float:
        """Seconds of all steps."""
        return (self.start or 0.0) + self.features + self.reset


@dataclass(frozen=True)
class Expected:
    """The serial run's array, as it was after each step."""

    features: Bytes
    reset: Bytes


@dataclass(frozen=True)
class Outcome:
    """What a parallel run took, and whether it was right."""

    times: Times
    features_equal: bool
    reset_equal: bool
    counted: int
    positions: int

    @property
    def correct(self) -> bool:
        """Whether both arrays equal the serial run's and the bar has counted every position."""
        return self.features_equal and self.reset_equal and self.counted == self.positions

    @property
    def verdict(self) -> str:
        """A sentence that says so."""
        if self.correct:
            return (
                f"equal to the serial run in every byte, after both steps; the bar counted {self.counted:,} positions"
            )
        wrong = [
            *(() if self.features_equal else ("the features DIFFER from the serial run's",)),
            *(() if self.reset_equal else ("the array after the reset DIFFERS from the serial run's",)),
            *(() if self.counted == self.positions else (f"the bar counted {self.counted:,} of {self.positions:,}",)),
        ]
        return "WRONG: " + "; ".join(wrong)


class Stopwatch:
    """Seconds since it was last asked."""

    def __init__(self) -> None:
        self._last = perf_counter()

    def lap(self) -> float:
        """Returns the seconds since the last lap, and starts the next."""
        now = perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


def bar_file() -> Any:
    """Returns where bars go: to a terminal they are drawn, elsewhere they only count."""
    return sys.stdout if sys.stdout.isatty() else io.StringIO()


# ------------------------------------------------------------------------------------------------- numpy alone


def serial(job: Job) -> tuple[Expected, Times]:
    """Does the job on one core. Bands, too: they keep to the cache, which makes this the fastest serial run."""
    watch = Stopwatch()
    array = np.empty((job.pixels, FEATURES), np.uint8)
    for band in tqdm.tqdm(job.bands, desc="serial numpy: features", file=bar_file(), leave=False):
        features(job.photos[band.photo], band.first, band.last, array[band.pixels])
    computed = watch.lap()

    after_features = array.copy()
    watch.lap()
    array.reshape(-1)[job.positions] = 0
    return Expected(after_features, array), Times(None, computed, watch.lap())


# --------------------------------------------------------------------- multiprocessing, as people write it


def _classic_features(photo: Bytes, band: Band, name: str, shape: tuple[int, int]) -> None:
    segment = shared_memory.SharedMemory(name=name)
    array: Bytes = np.ndarray(shape, np.uint8, segment.buf)
    features(photo, band.first, band.last, array[band.pixels])
    del array
    segment.close()


def _classic_reset(positions: Positions, name: str, lock: Any, queue: Any) -> None:
    segment = shared_memory.SharedMemory(name=name)
    flat: Bytes = np.ndarray(segment.size, np.uint8, segment.buf)
    with lock:
        flat[positions] = 0
    queue.put(len(positions))
    del flat
    segment.close()


def _feed(bar: "tqdm.tqdm[Any]", queue: Any) -> None:
    for count in iter(queue.get, None):
        bar.update(count)


def with_multiprocessing(job: Job, workers: int, expected: Expected) -> Outcome:
    """Does the job with the standard library: a segment by name, a Manager's lock and queue, a thread for the bar."""
    shape = (job.pixels, FEATURES)
    watch = Stopwatch()
    segment = shared_memory.SharedMemory(create=True, size=job.size)
    try:
        array: Bytes = np.ndarray(shape, np.uint8, segment.buf)
        with multiprocessing.Manager() as manager, multiprocessing.Pool(workers) as pool:
            lock, queue = manager.Lock(), manager.Queue()
            started = watch.lap()

            tasks = [
                pool.apply_async(_classic_features, (job.photos[band.photo], band, segment.name, shape))
                for band in job.bands
            ]
            for task in tqdm.tqdm(tasks, desc="multiprocessing: features", file=bar_file(), leave=False):
                task.get()
            computed = watch.lap()
            features_equal = np.array_equal(array, expected.features)

            watch.lap()
            bar = tqdm.tqdm(total=job.positions.size, desc="multiprocessing: reset", file=bar_file(), leave=False)
            feeder = Thread(target=_feed, args=(bar, queue), daemon=True)
            feeder.start()
            tasks = [pool.apply_async(_classic_reset, (chunk, segment.name, lock, queue)) for chunk in job.chunks]
            for task in tasks:
                task.get()
            queue.put(None)
            feeder.join()
            reset = watch.lap()
            bar.close()
        reset_equal = np.array_equal(array, expected.reset)
        del array
    finally:
        segment.close()
        segment.unlink()
    return Outcome(Times(started, computed, reset), features_equal, reset_equal, int(bar.n), job.positions.size)


# ------------------------------------------------------------------------------------------------------- shoal


def _shared_features(photo: Bytes, band: Band, array: Bytes) -> None:
    features(photo, band.first, band.last, array[band.pixels])


def _shared_reset(positions: Positions, array: Bytes, lock: Any, bar: Any) -> None:
    with lock:
        array.reshape(-1)[positions] = 0
    bar.update(len(positions))


def with_shoal(job: Job, workers: int, expected: Expected) -> Outcome:
    """Does the job with shoal: the array, the lock and the bar are arguments."""
    watch = Stopwatch()
    array = shoal.empty((job.pixels, FEATURES), np.uint8)
    lock = shoal.Lock()
    # Workers come from a fresh interpreter: let it import this module, and scipy with it, once and not in each of them.
    with shoal.Pool(workers, preload=[__name__]) as pool:
        started = watch.lap()

        tasks = [pool.apply_async(_shared_features, (job.photos[band.photo], band, array)) for band in job.bands]
        for task in tqdm.tqdm(tasks, desc="shoal: features", file=bar_file(), leave=False):
            task.get()
        computed = watch.lap()
        features_equal = np.array_equal(array, expected.features)

        watch.lap()
        bar = shoal.tqdm(total=job.positions.size, desc="shoal: reset", file=bar_file(), leave=False)
        tasks = [pool.apply_async(_shared_reset, (chunk, array, lock, bar)) for chunk in job.chunks]
        for task in tasks:
            task.get()
        reset = watch.lap()
        bar.close()
    reset_equal = np.array_equal(array, expected.reset)
    return Outcome(Times(started, computed, reset), features_equal, reset_equal, int(bar.n), job.positions.size)
