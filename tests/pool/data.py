"""Arrays of every make, and the functions that the tests of data give to pools."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = (
    "f8", "f2", ">f4", "i1", ">i8", "u2", "c16", ">c8", "?", "M8[ns]", ">M8[D]", "m8[s]", "U5", ">U3", "S7", "V9",
    [("a", "i4"), ("b", ">f8", (2,)), ("c", "U3")],
    {"names": ["x", "y"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 24},
)  # fmt: skip
LAYOUTS = ("C", "F", "reversed", "mirrored", "every other", "inner", "transposed", "broadcast")


def make(seed: int, dtype: Any, shape: tuple[int, ...], layout: str) -> NDArray[Any]:
    """An array of any dtype with drawn content, laid out in memory in one of `LAYOUTS`."""
    array = _content(np.random.default_rng(seed), np.dtype(dtype), shape)
    if not array.size or not shape:
        return array
    match layout:
        case "F":
            return np.asfortranarray(array)
        case "reversed":
            return array[::-1]
        case "mirrored":
            return array[..., ::-1]
        case "every other":
            return array[..., ::2]
        case "inner":
            return array[..., 1:-1]
        case "transposed":
            return array.T
        case "broadcast":
            return np.broadcast_to(array[:1], (3, *shape[1:]))
    return array


def _content(rng: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.zeros(shape, dtype)
    if dtype.names:
        for name in dtype.names:
            field = array[name]
            field[...] = _content(rng, field.dtype, field.shape)
    elif dtype.kind == "V":
        array[...] = np.frombuffer(rng.bytes(array.nbytes), dtype).reshape(shape)
    else:
        array[...] = rng.integers(0, 100, shape).astype(dtype)
    return array


def seen(array: NDArray[Any]) -> tuple[object, ...]:
    """All that can be told about an array, as values that can be compared."""
    flags = array.flags
    # The bytes between fields are nobody's: compare the fields.
    content = [array[name].tobytes() for name in array.dtype.names] if array.dtype.names else array.tobytes()
    return (
        type(array), array.dtype, array.dtype.str, array.shape,
        flags.c_contiguous, flags.f_contiguous, flags.writeable, flags.aligned, content,
    )  # fmt: skip


def copied(value: Any) -> Any:
    """What should arrive: a writable copy, its items one behind the other in the same order."""
    # Times of a few bytes are left to pickle, which has them in the byte order of the machine.
    small_times = value.dtype.kind in "mM" and value.nbytes < 16384
    return np.array(
        value, value.dtype.newbyteorder("=") if small_times else None, order="F" if value.flags.fnc else "C"
    )


class Labelled(np.ndarray):  # type: ignore[type-arg]
    """An array with an attribute, which it keeps when it is pickled."""

    label: str

    def __array_finalize__(self, source: Any) -> None:
        self.label = getattr(source, "label", "none")

    def __reduce__(self) -> Any:
        rebuild, arguments, state = super().__reduce__()  # type: ignore[misc]
        return rebuild, arguments, (state, self.label)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.label = state[1]


@dataclass
class Box:
    """Holds an array."""

    content: Any


def unwrapped(value: Any) -> NDArray[Any]:
    """The array in a list, a dict or a box."""
    if isinstance(value, list):
        return unwrapped(value[0])
    if isinstance(value, dict):
        return unwrapped(value["array"])
    return value.content if isinstance(value, Box) else value


def spoil(value: Any, _: object = None) -> tuple[float, float]:
    """Writes all over the array that it was given; returns the ends it had before."""
    array = unwrapped(value)
    before = float(array[0]), float(array[-1])
    array[:] = -1
    return before


def view_of(view: memoryview) -> tuple[object, ...]:
    """What a memoryview is, and what is in it."""
    return type(view).__name__, view.format, view.shape, view.tolist()


def same(value: Any) -> Any:
    return value


def number_of(value: Any) -> int:
    """What kind of bytes it is, by its length and sum."""
    return len(value) + sum(value)


kept: dict[object, NDArray[Any]] = {}


def keep(key: object, array: NDArray[Any]) -> None:
    kept[key] = array


def keep_filled(key: object, count: int, value: float) -> NDArray[Any]:
    """Makes an array, and returns it while keeping it."""
    kept[key] = np.full(count, value)
    return kept[key]


def kept_values() -> dict[object, set[float]]:
    return {key: set(array.tolist()) for key, array in kept.items()}


READING, WRITING, BETWEEN = 1, 2, 3
PIECES = 16


def answer(number: int, given: NDArray[np.int64], count: int, board: NDArray[np.int64]) -> NDArray[np.int64]:
    """Checks that the argument holds `number` throughout; returns `count` times `-number`.

    Writes on a shared board, in the row of the task, which process is at it and what it does.
    """
    row = board[number % len(board)]
    row[:] = os.getpid(), READING
    for piece in np.array_split(given, PIECES):
        if not (piece == number).all():
            raise RuntimeError(f"the argument of task {number} holds {set(piece.tolist())}")
    row[1] = WRITING
    result = np.empty(count, np.int64)
    for piece in np.array_split(result, PIECES):
        piece[:] = -number
    row[1] = BETWEEN
    return result
