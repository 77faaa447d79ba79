"""What workers run. Each is a function of its arguments, so that everybody knows what must come of it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import shoal

KINDS = ("number", "bytes", "array", "shared", "dict")


def thing(kind: str, size: int, number: int) -> Any:
    """Something of a kind, of about so many bytes, that shows which one it is."""
    if kind == "number":
        return number * 7
    if kind == "bytes":
        return number.to_bytes(8, "little") + bytes(size)
    if kind == "dict":
        return {"number": number, "text": "x" * size, "parts": [np.full(size // 16 + 1, number), (number,)]}
    made = np.full(size // 8 + 1, number, dtype=np.int64)
    return shoal.array(made) if kind == "shared" else made


def same(a: Any, b: Any) -> bool:
    """Whether two things are equal, in all their parts."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def answer(begun: np.ndarray, slot: int, given: Any, kind: str, size: int) -> Any:
    """Counts itself, and gives back another thing for the one that it was given."""
    begun[slot] += 1
    if isinstance(given, np.ndarray) and not isinstance(given, shoal.SharedArray):
        given += 1  # what is given without being shared is the task's own
    return thing(kind, size, slot)


def square(n: int) -> int:
    """The square."""
    return n * n


def nap(begun: np.ndarray, slot: int, seconds: float) -> int:
    """Takes a while."""
    begun[slot] += 1
    time.sleep(seconds)
    return slot


def fail_at_first(begun: np.ndarray, slot: int, times: int) -> int:
    """Raises ConnectionError so many times, then tells how often it was begun."""
    begun[slot] += 1
    if begun[slot] <= times:
        raise ConnectionError(slot)
    return int(begun[slot])


def nested(begun: np.ndarray, slot: int, depth: int, items: Sequence[int]) -> int:
    """The sum of the squares of the items, by a pool in a pool in a pool…"""
    begun[slot] += 1
    if depth == 0:
        return sum(n * n for n in items)
    with shoal.Pool(2) as pool:
        halves = [items[::2], items[1::2]]
        parts = [pool.apply_async(nested, (np.zeros(1, dtype=int), 0, depth - 1, half)) for half in halves]
        return sum(part.get(timeout=200) for part in parts)


def fill(part: np.ndarray, number: int) -> int:
    """Writes into a part of a shared array."""
    part[:] = number
    return number


def produce(queue: shoal.Queue, done: np.ndarray, producer: int, count: int, size: int) -> int:
    """Puts numbered items; `done` says how many surely lie there."""
    for n in range(count):
        payload = np.full(size // 8, n) if n % 3 == 0 else bytes(size) if n % 3 == 1 else None
        queue.put((producer, n, payload))
        done[producer] = n + 1
    return count


def consume(queue: shoal.Queue, taken: np.ndarray, most: int) -> int:
    """Takes items, while there are any, and says of each that it was taken."""
    for n in range(most):
        try:
            producer, number, payload = queue.get(timeout=0.2)
        except Exception as error:
            if type(error).__name__ == "Empty":
                return n
            raise
        if isinstance(payload, np.ndarray) and not (payload == number).all():
            raise AssertionError(f"item {number} of producer {producer} is damaged: {payload}")
        taken[producer, number] += 1
    return most


def enter(lock: Any, room: np.ndarray, rounds: int) -> int:
    """Goes in and out of a lock; raises AssertionError if somebody else is inside who has not died there."""
    me, broken = os.getpid(), 0
    for _ in range(rounds):
        with lock:
            abandoned = lock.abandoned
            if room[0] != 0 or room[1] != room[2]:
                if not abandoned:
                    raise AssertionError(f"{int(room[0])} is inside as well: {room}")
                broken += 1
                room[1] = room[2] = min(room[1], room[2])
            room[0] = me
            room[1] += 1
            room[2] += 1
            if room[0] != me:
                raise AssertionError(f"{int(room[0])} came inside: {room}")
            room[0] = 0
    return broken


def gorge(begun: np.ndarray, slot: int) -> None:
    """Takes memory until the kernel ends this worker, before all others."""
    begun[slot] += 1
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")
    hoard = []
    while True:
        hoard.append(bytearray(b"x") * (4 << 20))


def add(counter: shoal.Counter, times: int) -> int:
    """Counts."""
    for _ in range(times):
        counter.add()
    return times
