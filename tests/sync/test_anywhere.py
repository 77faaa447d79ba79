"""What all things of synchronisation have in common: they go anywhere, at any time, and are the same ones there."""

import contextlib
import copy
import ctypes
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import shoal
from tests.pool.support import descriptors, eventually
from tests.sync.support import stranger


def _take(lock: Any) -> None:
    lock.acquire(block=False)


def _set(event: Any) -> None:
    event.set()


def _add(counter: Any) -> None:
    counter.add()


def _abort(barrier: Any) -> None:
    barrier.abort()


def _assign(value: Any) -> None:
    value.value = 9


def _fill(array: Any) -> None:
    array[2] = 9


Case = tuple[Callable[[], Any], Callable[[Any], None], Callable[[Any], Any]]

# How to make one, to change its state, and to look at that.
CASES: dict[str, Case] = {
    "Lock": (shoal.Lock, _take, lambda lock: lock.locked()),
    "RLock": (shoal.RLock, _take, lambda lock: lock.locked()),
    "Semaphore": (lambda: shoal.Semaphore(5), _take, lambda semaphore: semaphore.get_value()),
    "BoundedSemaphore": (lambda: shoal.BoundedSemaphore(5), _take, lambda semaphore: semaphore.get_value()),
    "Event": (shoal.Event, _set, lambda event: event.is_set()),
    "Condition": (shoal.Condition, _take, lambda condition: condition._lock.locked()),
    "Barrier": (lambda: shoal.Barrier(2), _abort, lambda barrier: barrier.broken),
    "Counter": (shoal.Counter, _add, lambda counter: counter.value),
    "Value": (lambda: shoal.Value("i", 1), _assign, lambda value: value.value),
    "RawValue": (lambda: shoal.RawValue("i", 1), _assign, lambda value: value.value),
    "Array": (lambda: shoal.Array("i", 5), _fill, lambda array: array[:]),
    "RawArray": (lambda: shoal.RawArray(ctypes.c_double, 1000), _fill, lambda array: array[:]),
}

every_kind = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_kind
@pytest.mark.parametrize(
    "duplicate",
    [
        *(lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        lambda x: pickle.loads(cloudpickle.dumps(x)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"protocol {p}" for p in range(pickle.HIGHEST_PROTOCOL + 1)), "cloudpickle", "copy", "deepcopy"],
)
def test_a_duplicate_is_the_same_one(case: Case, duplicate: Any) -> None:
    make, change, look = case
    original = make()
    twin = duplicate(original)
    assert type(twin) is type(original)
    before = look(twin)
    change(original)
    assert look(twin) == look(original) != before


@every_kind
def test_workers_get_it_as_an_argument_in_an_object_and_in_a_closure(case: Case, pool: shoal.Pool) -> None:
    make, change, look = case
    for send in (
        lambda thing: pool.apply(change, (thing,)),
        lambda thing: pool.apply(lambda things: change(things["it"]), ({"it": thing},)),
        lambda thing: pool.apply(lambda: change(thing)),
    ):
        thing = make()
        before = look(thing)
        send(thing)
        assert eventually(lambda thing=thing, before=before: look(thing) != before)  # type: ignore[misc]


@every_kind
def test_a_worker_may_make_one_and_return_it(case: Case) -> None:
    make, change, look = case
    with shoal.Pool(1) as pool:
        thing = pool.apply(make)
        before = look(thing)
        pool.apply(change, (thing,))
        assert look(thing) != before
    pool.join()
    look(thing)


@every_kind
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_of_multiprocessing_gets_it(case: Case, method: str) -> None:
    make, change, look = case
    thing = make()
    before = look(thing)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=change, args=(thing,))
    process.start()
    process.join()
    assert process.exitcode == 0
    # A lock that was taken by who has ended is free again, sooner or later; then it says so.
    assert look(thing) != before or eventually(lambda: getattr(thing, "abandoned", False) or look(thing) == before)


@every_kind
def test_a_stranger_that_gets_the_bytes_has_it(case: Case) -> None:
    make, _, look = case
    thing = make()
    before = look(thing)
    program = (
        f"from tests.sync.test_anywhere import CASES\nCASES[{_name(case)!r}][1](things)\nreached.add()\ntime.sleep(500)"
    )
    with stranger(program, thing) as process:
        process.reaches()
        assert look(thing) != before


def _name(case: Case) -> str:
    return next(name for name, known in CASES.items() if known is case)


def test_many_thousand_cost_no_descriptors_of_their_own() -> None:
    shoal.Lock()
    before = descriptors()
    locks = [shoal.Lock() for _ in range(20_000)]
    more = descriptors() - before
    assert more < len(locks) / 500
    assert all(lock.acquire(block=False) for lock in locks)


def test_nothing_has_a_name_in_dev_shm() -> None:
    def used() -> set[str]:
        """What this process has open or mapped there: what is there may be others'."""
        maps = Path("/proc/self/maps").read_text().splitlines()
        found = {line.split(maxsplit=5)[-1] for line in maps if "/dev/shm/" in line}
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"/proc/self/fd/{number}"))
        return {name for name in found if name.startswith("/dev/shm/")}

    before = used()
    things = [make() for make, _, _ in CASES.values()]
    assert used() <= before
    assert len(things) == len(CASES)
