"""What the workers run on data. Each function looks at what it was given, so that a cheap promise has to be kept."""

import os
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ends(array: Array) -> float:
    """Touches the first and the last element."""
    return float(array[0] + array[-1])


def ends_and(array: Array, item: int) -> float:
    """The same, for tasks that have an array in common and an item of their own."""
    return float(array[0] + array[-1]) + item


def filled(count: int) -> Array:
    """A result that the worker made: `count` elements, each `count`."""
    return np.full(count, float(count))


@dataclass
class Fields:
    """An object with arrays in it, as programs have them."""

    position: Array
    velocity: Array
    mass: Array
    name: str


def arrays_of(structure: Any) -> list[Any]:
    """The arrays in a list, a dict or a dataclass."""
    if isinstance(structure, list):
        return structure
    if isinstance(structure, dict):
        return list(structure.values())
    return [value for field in fields(structure) if isinstance(value := getattr(structure, field.name), np.ndarray)]


def firsts(structure: Any) -> float:
    """Touches the first element of each array."""
    return float(sum(float(array.flat[0]) for array in arrays_of(structure)))


def echo(structure: Any) -> Any:
    """There and back."""
    return structure


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
