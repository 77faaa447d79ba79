"""`WorkerDied` tells all that is known: how, at what, and what the worker said last."""

import collections
import datetime
import decimal
import fractions
import os
import pickle
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import shoal
from tests.conftest import Run
from tests.faults import tasks
from torture.group import Group


def death_of(pool: shoal.Pool, function: object, *args: object, **kwds: object) -> shoal.WorkerDied:
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(function, args, kwds)  # type: ignore[arg-type]
    return caught.value


def test_how_it_ended_and_how_long_it_had_lived(pool: shoal.Pool) -> None:
    killed = death_of(pool, tasks.die_by, signal.SIGKILL)
    exited = death_of(pool, tasks.exit_with, 3)
    assert (killed.exitcode, exited.exitcode) == (-signal.SIGKILL, 3)
    assert killed.uptime is not None and killed.uptime > 0
    assert f"worker {killed.pid} was killed by signal 9 (SIGKILL) after " in str(killed)


def test_the_task_with_its_arguments_shortly(pool: shoal.Pool) -> None:
    assert death_of(pool, tasks.die_by, 9).task == "die_by(9)"
    assert death_of(pool, tasks.die_by, 9, "x" * 1000, key=[1, 2]).task.startswith("die_by(9, 'xxx")
    assert len(death_of(pool, tasks.die_by, 9, "x" * 1000).task) < 200
    assert death_of(pool, tasks.die_by, 9, key=[1, 2]).task == "die_by(9, key=[1, 2])"
    array = np.zeros((1000, 50))
    assert death_of(pool, tasks.die_by, 9, array).task == "die_by(9, <array of float64, shape (1000, 50)>)"


def test_what_a_worker_died_of_is_not_done_again_to_describe_it(pool: shoal.Pool) -> None:
    deadly = tasks.DeadlyToUnpickle()
    assert death_of(pool, tasks.exit_with, deadly).task == "exit_with(<posix._exit object>)"
    assert death_of(pool, tasks.exit_with, [deadly], key=deadly).task.count("<posix._exit object>") == 2
    with pytest.raises(shoal.WorkerDied, match=r"<posix[.]_exit object>"):
        pool.map(tasks.exit_with, [deadly], chunksize=1)


def test_arguments_of_the_users_own_classes_are_named(pool: shoal.Pool) -> None:
    def die(*args: object) -> None:
        os._exit(3)

    described = death_of(pool, die, tasks.Point(1, 2), len, {1: {2}}, np.float64(2)).task
    assert described.endswith(".die(<tests.faults.tasks.Point object>, len, {1: {2}}, np.float64(2.0))")


def test_arguments_of_the_standard_librarys_plain_classes_are_shown(pool: shoal.Pool) -> None:
    for things in (
        [Path("/data/x.tif"), decimal.Decimal("1.5"), fractions.Fraction(1, 3), collections.OrderedDict(a=1)],
        [datetime.date(2026, 2, 3), datetime.time(4, 5), datetime.datetime(2026, 2, 3), datetime.timedelta(hours=1)],
        [uuid.UUID(int=5), collections.deque([1, 2]), datetime.UTC],
    ):
        assert death_of(pool, tasks.die_by, 9, *things).task == f"die_by(9, {', '.join(map(repr, things))})"


def test_the_items_of_a_map(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.map(tasks.exit_with, [5, 5, 5, 5], chunksize=2)
    assert caught.value.task == "map(exit_with) of 2 items from 5 to 5"
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.map(tasks.exit_with, [5])
    assert caught.value.task == "map(exit_with) of 5"


def test_arguments_that_cannot_be_shown_do_not_hide_the_death(pool: shoal.Pool) -> None:
    class Shy:
        def __repr__(self) -> str:
            raise ValueError("not to be seen")

    assert "Shy" in death_of(pool, tasks.die_by, 9, Shy()).task


def test_the_last_twenty_lines_of_stderr(pool: shoal.Pool) -> None:
    error = death_of(pool, tasks.mutter_and_exit, 30)
    assert error.stderr == "\n".join(f"line {n}" for n in range(10, 30))
    assert str(error).endswith("its last words on stderr were:\n" + error.stderr)


def test_where_it_was_when_it_crashed(pool: shoal.Pool) -> None:
    error = death_of(pool, tasks.crash)
    assert error.exitcode == -signal.SIGSEGV
    assert error.traceback.startswith("Fatal Python error: Segmentation fault")
    inner, outer = error.traceback.index("in read_where_nothing_is"), error.traceback.index("in crash")
    assert inner < outer
    assert "_worker.py" not in error.traceback, "what called the task is of no interest"
    assert error.stderr == "about to crash"
    assert error.traceback in str(error)


def test_it_survives_pickle(pool: shoal.Pool) -> None:
    error = death_of(pool, tasks.crash)
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error) and vars(back) == vars(error)


def test_what_workers_say_on_stderr_is_heard_line_by_line(run: Run) -> None:
    result = run("""
        import os, sys, shoal

        def speak(n):
            for part in ("be", "gin ", str(n), " end\\n"):
                sys.stderr.write(part)
                sys.stderr.flush()

        if __name__ == "__main__":
            with shoal.Pool(2) as pool:
                pool.map(speak, range(200), chunksize=1)
                pool.apply(os.write, (2, b"without an end"))
                pool.close()
                pool.join()
    """)
    assert result.returncode == 0
    lines = result.stderr.splitlines()
    assert sorted(lines) == sorted([*(f"begin {n} end" for n in range(200)), "without an end"])


def test_nothing_of_it_is_lost_if_the_program_ends_at_once(run: Run) -> None:
    result = run("""
        import sys, shoal
        pool = shoal.Pool(1)
        pool.apply(lambda: print("x" * 100_000, "said", file=sys.stderr))
    """)
    assert result.stderr.endswith("x said\n")


def test_a_flood_on_stderr_stops_nobody(run: Run) -> None:
    result = run("""
        import sys, shoal
        with shoal.Pool(2) as pool:
            flood = "y" * 79 + "\\n" + ("z" * 79 + "\\n") * 100_000
            floods = [pool.apply_async(lambda: sys.stderr.write(flood)) for _ in range(2)]
            assert [flood.get() for flood in floods] == [100_001 * 80] * 2
            pool.close()
            pool.join()
    """)
    assert result.returncode == 0, result.stderr[-1000:]
    assert result.stderr.count("y") == 2 * 79 and result.stderr.count("z") == 2 * 79 * 100_000


@pytest.fixture
def group() -> Iterator[Group]:
    """A control group with little memory."""
    group = Group.make(f"shoal-test-{os.getpid()}", 200 << 20)
    if group is None:
        pytest.skip("no control group can be made here")
    yield group
    group.remove(100)


def test_the_kernels_memory_killer_is_named(run: Run, group: Group) -> None:
    result = run(
        """
        import os, signal, sys
        from pathlib import Path
        Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
        import shoal

        def gorge():
            Path("/proc/self/oom_score_adj").write_text("1000")
            return len(bytearray(b"x") * (1 << 30))

        with shoal.Pool(2) as pool:
            pool.map(abs, range(10))
            # Two at a time: each has its own kill to explain it.
            for result in [pool.apply_async(gorge) for _ in range(4)]:
                try:
                    result.get()
                except shoal.WorkerDied as error:
                    print(error.exitcode, error.cause)
        """,
        str(group.path),
    )
    assert result.stdout.splitlines() == ["-9 the kernel killed it because memory had run out"] * 4, result.stderr
    assert group.kills() == 4


def test_one_that_was_stopped_in_time_does_not_pass_for_the_one_whom_the_kernel_killed(run: Run, group: Group) -> None:
    result = run(
        """
        import os, signal, sys, time
        from pathlib import Path
        Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
        import shoal

        def kills():
            words = Path(sys.argv[1], sys.argv[2]).read_text().split()
            return int(words[words.index("oom_kill") + 1])

        def gorge():
            Path("/proc/self/oom_score_adj").write_text("1000")
            hoard = []
            while True:
                hoard.append(bytearray(b"x") * (4 << 20))

        def freeze():
            os.kill(os.getpid(), signal.SIGSTOP)

        def is_frozen(pid):
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "T"

        with shoal.Pool(2) as pool:
            pool.map(abs, range(10))
            frozen = pool.apply_async(freeze)
            while not any(is_frozen(worker.pid) for worker in pool.workers):
                time.sleep(0.001)
            gorging = pool.apply_async(gorge)
            while not kills():
                pass
            # The other is dying, and takes longer for it, as it has more to give back.
            frozen.cancel(running=True)
            for result in (frozen, gorging):
                try:
                    result.get()
                except Exception as error:
                    print(type(error).__name__, getattr(error, "cause", None))
        """,
        str(group.path),
        group.events,
    )
    assert result.stdout.splitlines() == [
        "CancelledError None",
        "WorkerDied the kernel killed it because memory had run out",
    ], result.stderr
