"""They live until the last holder in any process drops them; the creator may end first, in whatever way."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.conftest import Run
from tests.domain.test_forks import PRELUDE
from tests.pool.support import ended, eventually


class Guest:
    """A fresh process that evaluates what it is told, with `things` that it was given."""

    PROGRAM = """
import os, pickle, signal, subprocess, sys, time
import numpy as np
import shoal

def elsewhere(source, *things):
    source = "import pickle, sys; things = pickle.load(sys.stdin.buffer)\\n" + source
    command = [sys.executable, "-c", source]
    output = subprocess.run(command, input=pickle.dumps(things), stdout=subprocess.PIPE, check=True).stdout
    return output.decode().strip()

def until(condition):
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, "in vain"
        time.sleep(0.005)
    return True

def kill(pid):
    os.kill(pid, signal.SIGKILL)

channel = os.fdopen(int(sys.argv[1]), "rb")
while True:
    source = pickle.load(channel)
    try:
        answer = eval(source, globals()) if not source.startswith("!") else exec(source[1:], globals())
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    sys.stdout.buffer.write(pickle.dumps(answer))
    sys.stdout.buffer.flush()
"""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        command = [sys.executable, "-W", "ignore", "-c", self.PROGRAM, str(reader)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[reader])
        os.close(reader)
        self._channel = os.fdopen(writer, "wb")
        self.pid = self._process.pid

    def tell(self, source: str) -> None:
        """Have it evaluate this; `get` returns the value."""
        pickle.dump(source, self._channel)
        self._channel.flush()

    def get(self) -> Any:
        """The value of what was told first."""
        assert self._process.stdout is not None
        return pickle.load(self._process.stdout)

    def __call__(self, source: str) -> Any:
        self.tell(source)
        return self.get()

    def give(self, name: str, other: "Guest") -> None:
        """Pickles what has that name here; there it has it, too."""
        pickled = self(f"pickle.dumps({name})")
        assert isinstance(pickled, bytes), pickled
        other.takes(name, pickled)

    def takes(self, name: str, pickled: bytes) -> None:
        """Unpickles it. Whoever follows a host may be longer on its way than a newcomer waits: then once more."""
        answers: list[Any] = []

        def is_asked() -> bool:
            answers.append(self(f"!{name} = pickle.loads({pickled!r})"))
            return "is gone" not in str(answers[-1])

        eventually(is_asked)
        assert answers[-1] is None

    def kill(self) -> None:
        """Kills it, and waits until it is gone."""
        self._process.kill()
        self._process.wait()

    def ends(self) -> None:
        """It ends as programs do."""
        self._channel.close()
        self._process.wait(150)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._channel.close()


@pytest.fixture
def guests() -> Iterator[list[Guest]]:
    """Four processes, not related to each other."""
    guests = [Guest() for _ in range(4)]
    yield guests
    for guest in guests:
        guest.close()


def ends(guest: Guest, how: str) -> None:
    if how == "killed":
        guest.kill()
    elif how == "ends":
        guest.ends()
    else:
        guest.tell("os._exit(3)")
        guest._process.wait(150)


every_end = pytest.mark.parametrize("how", ["killed", "ends", "exits at once"])

MAKE_ALL = """!
array, lock, counter = shoal.full(100_000, 7.0), shoal.Lock(), shoal.Counter(3)
queue, event = shoal.Queue(), shoal.Event()
all = (array, lock, counter, queue, event)
"""
ALL = "!array, lock, counter, queue, event = all"


@every_end
def test_the_creator_may_end_first(guests: list[Guest], how: str) -> None:
    creator, first, second, third = guests
    assert creator(MAKE_ALL) is None
    creator.give("all", first)
    creator.give("all", second)
    ends(creator, how)
    for guest in (first, second):
        assert guest(ALL) is None
        assert guest("float(array.sum())") == 700_000.0
        assert guest("!counter.add(1)") is None
    assert first("lock.acquire(), lock.release()") == (True, None)
    # It is pickled and resolved as ever.
    first.give("all", third)
    assert third(ALL) is None
    assert third("float(array.sum()), counter.value") == (700_000.0, 5)
    # Large items need memory of the domain.
    assert third("queue.put(np.full(1_000_000, 3.0))") is None
    assert second("float(queue.get(timeout=100).sum())") == 3_000_000.0
    assert third("!array += 1") is None
    assert second("float(array.sum())") == 800_000.0


def test_what_the_creator_put_and_nobody_has_mapped_is_not_lost(guests: list[Guest]) -> None:
    creator, first, second, _ = guests
    creator("!queue = shoal.Queue()")
    creator.give("queue", first)
    creator("!for n in range(20): queue.put(np.full(1_000_000, float(n)))")
    creator("!queue.put([shoal.full(3_000_000, 1.0), shoal.Lock()])")
    creator.kill()
    first.give("queue", second)
    for n in range(20):
        assert (second if n % 2 else first)("float(queue.get(timeout=100).mean())") == n
    assert first("!array, lock = queue.get(timeout=100)") is None
    assert first("float(array.sum()), lock.acquire(), lock.acquire(block=False)") == (3_000_000.0, True, False)
    first.give("lock", second)
    first.kill()
    assert second("lock.acquire(timeout=100), lock.abandoned") == (True, True)


def test_locks_of_the_dead_creator_pass_on_to_who_waits(guests: list[Guest]) -> None:
    creator, first, second, _ = guests
    creator("!lock = shoal.Lock()")
    creator.give("lock", first)
    creator.give("lock", second)
    assert creator("lock.acquire()")
    first.tell("lock.acquire(timeout=100), lock.abandoned, lock.release()")
    creator.kill()
    assert first.get() == (True, True, None)
    assert second("lock.acquire(timeout=100)")
    second.kill()
    assert first("lock.acquire(timeout=100), lock.abandoned") == (True, True)


def test_two_hosts_end_one_after_the_other(guests: list[Guest]) -> None:
    creator, first, second, third = guests
    assert creator(MAKE_ALL) is None
    creator("!queue.put(np.full(1_000_000, 1.0))")
    for guest in (first, second):
        creator.give("all", guest)
        guest(ALL)
    creator.kill()
    # Whoever of them is the host now.
    assert first("queue.put(np.full(1_000_000, 2.0))") is None
    first.kill()
    second.give("all", third)
    assert third(ALL) is None
    assert [third("float(queue.get(timeout=100).mean())"), second("float(queue.get(timeout=100).mean())")] == [1.0, 2.0]
    second.kill()
    assert third("queue.put(np.full(1_000_000, 3.0)), float(queue.get().mean())") == (None, 3.0)
    assert third("elsewhere('print(things[0][2].value)', all)") == "3"


def test_all_but_one_end_at_once(guests: list[Guest]) -> None:
    *dying, last = guests
    assert dying[0](MAKE_ALL) is None
    for guest in guests[1:]:
        dying[0].give("all", guest)
        guest(ALL)
    assert dying[1]("lock.acquire()")
    for guest in dying:
        os.kill(guest.pid, signal.SIGKILL)
    assert last("lock.acquire(timeout=100), lock.abandoned") == (True, True)
    # Needs whoever is the host now, as the newcomer does, who waits less long for it.
    assert last("!shoal.full(1_000_000, 1.0)") is None
    assert last("elsewhere('print(things[0][2].value)', all)") == "3"


def test_a_handle_is_resolved_while_the_host_changes(guests: list[Guest]) -> None:
    creator, first, second, third = guests
    assert creator(MAKE_ALL) is None
    creator.give("all", first)
    pickled = first("pickle.dumps(all)")
    creator.kill()
    for guest in (second, third):
        guest.takes("all", pickled)
        assert guest("float(all[0].sum())") == 700_000.0


def test_what_the_dead_host_held_is_free(guests: list[Guest]) -> None:
    creator, first, _, _ = guests
    creator("!big = [shoal.full(5_000_000, 1.0) for _ in range(5)]; kept = shoal.Counter()")
    creator.give("kept", first)
    creator.give("big", first)
    creator.kill()
    assert first("float(sum(array.sum() for array in big))") == 25_000_000.0
    held = shared(first.pid)
    first("!del big")
    assert eventually(lambda: shared(first.pid) < held - 150_000_000)
    assert first("!kept.add()") is None


def shared(pid: int) -> int:
    """Bytes of shared memory that a process has mapped and are there."""
    return int(psutil.Process(pid).memory_info().shared)


def test_a_fork_of_the_creator_follows_it(run: Run) -> None:
    source = """
array, lock, queue, parent = shoal.full(100_000, 7.0), shoal.Lock(), shoal.Queue(), os.getpid()
queue.put(np.full(1_000_000, 2.0))
lock.acquire()
def go_on():
    until(lambda: os.getppid() != parent)
    print(lock.acquire(timeout=100), lock.abandoned)
    mine = shoal.full(1_000_000, 1.0)
    queue.put(mine)
    print(elsewhere("print(*(float(thing.sum()) for thing in things))", array, mine).decode(), end="")
    print(float(queue.get().sum()), float(queue.get().sum()))
    def grandchild():
        until(lambda: os.getppid() != child)
        other = shoal.full(1_000_000, 1.0)
        print(elsewhere("print(*(float(thing.sum()) for thing in things))", array, mine).decode(), end="")
        print(float(other.sum()))
    child = os.getpid()
    forked(grandchild)
    sys.stdout.flush()
    os.kill(child, signal.SIGKILL)
forked(go_on)
os.kill(parent, signal.SIGKILL)
"""
    program = run(PRELUDE + source)
    assert program.stderr == ""
    expected = "True True\n700000.0 1000000.0\n2000000.0 1000000.0\n700000.0 1000000.0\n1000000.0\n"
    assert program.stdout == expected


def test_workers_of_a_dead_client_end_and_what_they_made_stays(guests: list[Guest]) -> None:
    creator, first, second, _ = guests
    creator("!pool = shoal.Pool(2); pids = [worker.pid for worker in pool.workers]")
    creator("!array = pool.apply(shoal.full, (2_000_000, 4.0)); lock = shoal.Lock(); queue = shoal.Queue()")
    creator("!pool.apply(queue.put, (np.full(1_000_000, 5.0),))")
    creator("!taken = pool.apply_async(lambda: (lock.acquire(), time.sleep(100)))")
    assert creator("until(lock.locked)")
    for name in ("array", "lock", "queue"):
        creator.give(name, first)
    workers = [psutil.Process(pid) for pid in creator("[worker.pid for worker in pool.workers]")]
    creator.kill()
    assert first("lock.acquire(timeout=100), lock.abandoned") == (True, True)
    assert eventually(lambda: all(ended(worker) for worker in workers))
    assert first("float(array.sum()), float(queue.get(timeout=100).sum())") == (8_000_000.0, 5_000_000.0)
    first.give("array", second)
    assert second("float(array.sum())") == 8_000_000.0


def test_when_the_last_one_has_ended_handles_are_void(guests: list[Guest]) -> None:
    creator, first, second, _ = guests
    creator("!array = shoal.full(1000, 1.0)")
    creator.give("array", first)
    pickled = creator("pickle.dumps(array)")
    creator.kill()
    first.kill()
    answer = second(f"pickle.loads({pickled!r})")
    assert answer.startswith("ShoalError: the shared memory behind this handle is gone")


@pytest.mark.slow
def test_hosts_killed_at_any_moment_lose_nothing() -> None:
    dice = random.Random(1)
    for _ in range(25):
        guests = [Guest() for _ in range(4)]
        try:
            creator = guests[0]
            creator("!lock, counter, queue = shoal.Lock(), shoal.Counter(), shoal.Queue(); all = lock, counter, queue")
            creator("!keep = shoal.full(1_000_000, 7.0); queue.put(keep)")
            for guest in guests[1:]:
                creator.give("all", guest)
                guest("!lock, counter, queue = all")
            for guest in guests:
                guest(
                    "!import threading\ndef work():\n  while True:\n    with lock: counter.add()\n"
                    "    a = shoal.full(200_000, 1.0); assert a.sum() == 200_000\n"
                    "threading.Thread(target=work, daemon=True).start()"
                )
            victims = guests[:3]
            for victim in victims:
                os.kill(victim.pid, signal.SIGKILL)
                time.sleep(dice.choice([0, 0, 0.0005, 0.002, 0.01]))
            last = guests[3]
            assert last("lock.acquire(timeout=100)"), "the lock was lost"
            assert last("!before = counter.value") is None
            assert last("lock.release(), until(lambda: counter.value > before)") == (None, True)
            assert last("float(queue.get(timeout=100).sum())") == 7_000_000.0
            assert last("!shoal.full(1_000_000, 1.0)") is None
            assert last("elsewhere('print(things[0].value > 0)', counter)") == "True"
        finally:
            for guest in guests:
                guest.close()
