"""What the workers run when memory is measured: a module of its own, so that they import nothing else for it."""

import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shoal.bench.array_tasks import Array


def sum_and_hold(folder: str, array: Array, item: int) -> float:
    """Reads all of an array, says so by a file, and keeps the array until the file `gate` exists."""
    total = float(array.sum())
    (Path(folder) / f"read-{item}").touch()
    while not os.path.exists(os.path.join(folder, "gate")):
        time.sleep(0.005)
    return total + float(array[0])


def chain(turns: int) -> float:
    """Seconds for `turns` of an expression with temporaries of 8 MB, after a first one."""
    array = np.ones(1_000_000)
    array = array * 0.5 + 1
    started = time.perf_counter()
    for _ in range(turns):
        array = array * 0.5 + 1
    return time.perf_counter() - started


def checked_reply(request: tuple[NDArray[np.uint8], int, int]) -> NDArray[np.uint8]:
    """Checks that an array holds `mark` at both ends; returns `size` bytes of it."""
    array, mark, size = request
    if array[0] != mark or array[-1] != mark:
        raise RuntimeError(f"an array of {array.size} bytes must hold {mark}, not {array[0]} and {array[-1]}")
    return np.full(size, mark, np.uint8)
