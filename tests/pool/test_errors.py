"""What goes wrong in a task arrives where the task was asked for, as what it is; it harms no other task."""

import dataclasses
import os
import pickle
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import shoal
from tests.pool import tasks
from tests.stuck import stuck


def test_an_exception_arrives_as_itself(pool: shoal.Pool) -> None:
    with pytest.raises(ValueError) as caught:
        pool.apply(tasks.fail, ("broken",))
    assert type(caught.value) is ValueError
    assert caught.value.args == ("broken",)


def test_its_cause_shows_where_in_the_worker_it_was_raised(pool: shoal.Pool) -> None:
    with pytest.raises(ValueError) as caught:
        pool.apply(tasks.fail)
    cause = caught.value.__cause__
    assert type(cause).__name__ == "RemoteTraceback"
    assert "in fail\n" in str(cause)
    assert "raise ValueError(message)" in str(cause)


def test_it_keeps_its_notes(pool: shoal.Pool) -> None:
    with pytest.raises(ValueError) as caught:
        pool.apply(fail_with_note)
    assert caught.value.__notes__ == ["while counting"]


def fail_with_note() -> None:
    error = ValueError("broken")
    error.add_note("while counting")
    raise error


@pytest.mark.parametrize(
    ("function", "name", "text"), [("picky", "PickyError", "picky"), ("sticky", "StickyError", "sticky")]
)
def test_an_exception_that_cannot_travel_sends_a_stand_in(
    pool: shoal.Pool, function: str, name: str, text: str
) -> None:
    with pytest.raises(shoal.RemoteError) as caught:
        pool.apply(getattr(tasks, f"fail_{function}"))
    error = caught.value
    assert name in error.type_name
    assert text in error.message
    assert name in str(error) and text in str(error)
    assert f"in fail_{function}\n" in error.traceback
    assert pool.apply(tasks.square, (3,)) == 9


UNSENDABLE = stuck()


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        (UNSENDABLE, "cannot pickle 'generator' object"),
        ([1, UNSENDABLE], r"\[1\]: cannot pickle 'generator' object"),
        ({"key": (UNSENDABLE,)}, r"\['key'\]\[0\]: cannot pickle 'generator' object"),
        (tasks.Holder(UNSENDABLE), r"\.content: cannot pickle 'generator' object"),
        (tasks.Holder([tasks.Holder(UNSENDABLE)]), r"\.content\[0\]\.content: cannot pickle 'generator' object"),
    ],
)
def test_what_cannot_be_pickled_is_an_error_that_names_the_way_to_it(
    pool: shoal.Pool, argument: object, path: str
) -> None:
    with pytest.raises(shoal.SerializationError, match=path) as caught:
        pool.apply(tasks.same, (argument,))
    assert isinstance(caught.value, pickle.PicklingError)
    with pytest.raises(shoal.SerializationError, match=path):
        pool.map(tasks.same, [argument])
    with pytest.raises(shoal.SerializationError, match=path):
        list(pool.imap(tasks.same, [argument]))


def test_a_function_that_cannot_be_pickled_is_such_an_error_too(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.SerializationError, match=r"content: cannot pickle 'generator' object"):
        pool.map(tasks.Holder(UNSENDABLE).length, [1])


def test_that_error_does_not_wait_for_a_free_worker(pool: shoal.Pool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    blockers = [pool.apply_async(tasks.wait_for, (gate,)) for _ in range(2)]
    with pytest.raises(shoal.SerializationError):
        pool.apply(tasks.same, (UNSENDABLE,))
    assert not any(blocker.ready() for blocker in blockers)
    gate.touch()
    assert [blocker.get() for blocker in blockers] == [None, None]


def test_a_result_that_cannot_be_pickled_is_an_error_of_its_task(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.SerializationError, match=r"cannot pickle 'generator' object"):
        pool.apply(stuck)
    with pytest.raises(shoal.SerializationError, match=r"\.content: cannot pickle 'generator' object"):
        pool.apply(make_holder)
    assert pool.apply(tasks.square, (3,)) == 9


def make_holder() -> tasks.Holder:
    return tasks.Holder(stuck())


def test_a_result_that_cannot_be_unpickled_is_an_error_of_its_task(pool: shoal.Pool) -> None:
    with pytest.raises((ValueError, shoal.SerializationError), match="cannot be loaded"):
        pool.apply(tasks.unloadable)
    assert pool.apply(tasks.square, (3,)) == 9


def test_an_argument_that_cannot_be_unpickled_is_an_error_of_its_task(pool: shoal.Pool) -> None:
    with pytest.raises((ValueError, shoal.SerializationError), match="cannot be loaded"):
        pool.apply(tasks.same, (tasks.Unloadable(),))
    assert pool.apply(tasks.square, (3,)) == 9


def test_an_initializer_that_raises_fails_the_tasks_with_its_exception() -> None:
    with shoal.Pool(2, initializer=tasks.fail, initargs=("not today",)) as pool:
        for _ in range(3):
            with pytest.raises(ValueError, match="not today"):
                pool.apply(tasks.square, (3,))
        pool.close()
        pool.join()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """It takes no note."""

    why: str


def raise_frozen() -> None:
    raise Frozen("not today")


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_an_initializer_may_raise_what_takes_no_note(kind: str) -> None:
    with shoal.Pool(1, raise_frozen, kind=kind) as pool:
        # Nor can it be unpickled: from a process comes what stands for it.
        with pytest.raises((Frozen, shoal.RemoteError), match="not today"):
            pool.apply(tasks.square, (3,))


def test_a_pool_recovers_when_its_initializer_does(tmp_path: Path) -> None:
    with shoal.Pool(1, initializer=tasks.fail_once, initargs=(tmp_path / "called",)) as pool:
        first = pool.apply_async(tasks.square, (3,))
        first.wait()
        if not first.successful():
            with pytest.raises(ValueError, match="first call"):
                first.get()
        assert pool.apply(tasks.square, (3,)) == 9
    pool.join()


ENDS = [
    pytest.param(tasks.exit_hard, 3, 3, id="os._exit(3)"),
    pytest.param(tasks.exit_hard, 0, 0, id="os._exit(0)"),
    pytest.param(tasks.exit_soft, 3, 3, id="sys.exit(3)"),
    pytest.param(tasks.die_by, signal.SIGKILL, -signal.SIGKILL, id="SIGKILL"),
    pytest.param(tasks.die_by, signal.SIGTERM, -signal.SIGTERM, id="SIGTERM"),
    pytest.param(tasks.die_by, signal.SIGSEGV, -signal.SIGSEGV, id="SIGSEGV"),
]


@pytest.mark.parametrize(("end", "argument", "exitcode"), ENDS)
def test_a_worker_that_ends_fails_its_task_and_says_how_it_ended(
    pool: shoal.Pool, end: object, argument: int, exitcode: int
) -> None:
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(end, (argument,))  # type: ignore[arg-type]
    error = caught.value
    assert isinstance(error, BrokenProcessPool)
    assert error.exitcode == exitcode
    assert str(error.pid) in str(error)
    assert end.__name__ in error.task  # type: ignore[attr-defined]
    assert pool.map(tasks.square, range(100)) == [x * x for x in range(100)]


@pytest.mark.parametrize(("end", "argument", "exitcode"), ENDS)
def test_the_end_of_a_worker_touches_no_other_task(
    pool: shoal.Pool, tmp_path: Path, end: object, argument: int, exitcode: int
) -> None:
    """One task runs in the other worker at that time, others are queued before and after."""
    started, gate = tmp_path / "started", tmp_path / "gate"
    running = pool.apply_async(tasks.touch_and_wait, (started, gate))
    tasks.wait_for(started)
    before = [pool.apply_async(tasks.square, (x,)) for x in range(50)]
    lethal = pool.apply_async(end, (argument,))  # type: ignore[arg-type]
    after = [pool.apply_async(tasks.square, (x,)) for x in range(50)]
    with pytest.raises(shoal.WorkerDied):
        lethal.get()
    assert [result.get() for result in before + after] == [x * x for x in range(50)] * 2
    gate.touch()
    assert running.get() is None


def test_a_pool_survives_the_death_of_all_its_workers_again_and_again(pool: shoal.Pool) -> None:
    for _ in range(5):
        lethal = [pool.apply_async(tasks.die_by, (signal.SIGKILL,)) for _ in range(4)]
        for result in lethal:
            with pytest.raises(shoal.WorkerDied):
                result.get()
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]


def test_map_raises_what_happened_to_the_worker(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.WorkerDied):
        pool.map(tasks.exit_hard, [3])


def test_imap_goes_on_after_the_death_of_a_worker(pool: shoal.Pool) -> None:
    results = pool.imap(exit_if_negative, [1, -1, 2])
    assert next(results) == 1
    with pytest.raises(shoal.WorkerDied):
        next(results)
    assert list(results) == [2]


def exit_if_negative(x: int) -> int:
    return x if x >= 0 else tasks.exit_hard(3)


def test_a_worker_that_is_killed_while_idle_is_replaced(pool: shoal.Pool) -> None:
    for worker in pool.workers:
        os.kill(worker.pid, signal.SIGKILL)
    results = [pool.apply_async(tasks.square, (x,)) for x in range(20)]
    for x, result in enumerate(results):
        try:
            assert result.get() == x * x
        except shoal.WorkerDied:  # it was taken by a worker in the moment before its end
            continue
    assert pool.map(tasks.square, range(10)) == [x * x for x in range(10)]
