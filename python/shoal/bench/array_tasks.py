"""What the workers run on data. Each function looks at what it was given, so that a cheap promise has to be kept."""

from dataclasses import dataclass, fields
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


def least(count: int) -> float:
    """Nearly all of its time is spent in numpy, which lets go of the interpreter: the least of some random numbers."""
    return float(np.sort(np.random.default_rng(count).random(count))[0])


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
