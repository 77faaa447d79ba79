"""Pools seen from outside: those of other processes, while they work, change and die."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest

import shoal
from shoal import _engine
from shoal.insight.outside import ClientSeen, Onlooker
from shoal.insight.processes import POOL, find
from tests.insight.watched import Program, program
from tests.pool.support import eventually


@pytest.fixture
def watched() -> Iterator[Program]:
    with program() as it:
        yield it


def client(pid: int, onlooker: Onlooker | None = None) -> ClientSeen:
    (seen,) = (onlooker or Onlooker([pid])).look().clients
    return seen


def comes(pid: int, what: Callable[[ClientSeen], object]) -> bool:
    """Waits until a look at the process shows it."""
    return eventually(lambda: what(client(pid)))


def states(seen: ClientSeen) -> list[str]:
    return [worker.state for worker in seen.pools[0].workers]


def test_what_the_workers_of_another_process_are_at_is_seen(watched: Program) -> None:
    assert comes(watched.pid, lambda seen: states(seen) == ["idle", "idle"])
    watched.do("submit 10")
    assert comes(watched.pid, lambda seen: states(seen) == ["busy", "busy"])
    (pool,) = client(watched.pid).pools
    assert pool.open and pool.queued == 8
    assert [worker.task for worker in pool.workers] == ["wait_for", "wait_for"]
    before = [worker.task_seconds for worker in pool.workers]
    after = [worker.task_seconds for worker in client(watched.pid).pools[0].workers]
    assert all(0 < one < other for one, other in zip(before, after, strict=True))
    done = pool.tasks
    watched.do("finish")
    assert comes(watched.pid, lambda seen: states(seen) == ["idle", "idle"])
    (pool,) = client(watched.pid).pools
    assert pool.queued == 0 and pool.tasks == done + 10
    assert [worker.task for worker in pool.workers] == [None, None]


def test_throughput_and_use_are_of_the_time_between_two_looks(watched: Program) -> None:
    onlooker = Onlooker([watched.pid])
    first = onlooker.look()
    assert first.seconds == 0.0
    assert (first.clients[0].pools[0].throughput, first.clients[0].pools[0].used) == (0.0, 0.0)
    watched.do("submit 10")
    watched.do("finish")
    second = onlooker.look()
    assert second.clients[0].pools[0].throughput == pytest.approx(10 / second.seconds)
    assert 0.0 < second.clients[0].pools[0].used <= 1.0
    assert onlooker.look().clients[0].pools[0].throughput == 0.0


def test_who_holds_which_shared_memory_is_seen(watched: Program) -> None:
    held = client(watched.pid)
    assert held.memory is not None and held.memory.bytes >= 4_000_000 and held.memory.blocks >= 2
    before = held.memory.leases
    watched.do("submit 2")
    # Each has the array and the event.
    assert comes(
        watched.pid, lambda seen: all(w.leased_bytes >= 4_000_000 and w.leases >= 2 for w in seen.pools[0].workers)
    )
    seen = client(watched.pid)
    assert seen.memory is not None and seen.memory.leases >= before + 4
    assert seen.private_bytes > 0 and all(worker.private_bytes > 0 for worker in seen.pools[0].workers)


def test_a_worker_that_died_is_replaced_before_ones_eyes(watched: Program) -> None:
    watched.do("submit 2")
    assert comes(watched.pid, lambda seen: states(seen) == ["busy", "busy"])
    victim = client(watched.pid).pools[0].workers[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    assert comes(watched.pid, lambda seen: seen.pools[0].workers[0].pid not in (victim, None))
    assert comes(watched.pid, lambda seen: states(seen) == ["idle", "busy"])


def test_a_stopped_worker_is_told_apart(watched: Program) -> None:
    assert comes(watched.pid, lambda seen: states(seen) == ["idle", "idle"])
    victim = client(watched.pid).pools[0].workers[1].pid
    assert victim is not None
    os.kill(victim, signal.SIGSTOP)
    assert comes(watched.pid, lambda seen: states(seen) == ["idle", "stopped"])
    os.kill(victim, signal.SIGCONT)
    assert comes(watched.pid, lambda seen: states(seen) == ["idle", "idle"])


def test_a_pool_that_is_over_is_not_shown_any_more(watched: Program) -> None:
    watched.do("close")
    assert Onlooker([watched.pid]).look().clients == ()


def test_a_client_that_is_killed_while_it_is_looked_at_is_not_there_any_more() -> None:
    with program() as watched:
        watched.do("submit 10")
        onlooker = Onlooker([watched.pid])
        assert len(onlooker.look().clients) == 1
        killer = threading.Timer(0.05, watched.process.kill)
        killer.start()
        looks = 0
        while onlooker.look().clients:
            looks += 1
        killer.join()
        watched.process.wait()
        assert eventually(lambda: Onlooker([watched.pid]).look().clients == ())


def test_the_pools_of_ones_own_process_are_seen_too(pool: shoal.Pool) -> None:
    with shoal.Pool(1) as other:
        other.apply(os.getpid)
        pids = {worker.pid for each in (pool, other) for worker in each.workers}
        assert comes(os.getpid(), lambda seen: {w.pid for its in seen.pools for w in its.workers} >= pids - {None})


def test_the_pools_of_a_container_are_seen_under_the_numbers_that_hold_here() -> None:
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a process have a namespace of its own")
    with program(apart) as watched:
        watched.do("submit 2")

        def of_it() -> list[ClientSeen]:
            inside = [pid for pid, process in find().items() if process.inner != pid]
            clients = Onlooker(inside).look().clients if inside else ()
            children = {child.pid for child in psutil.Process(watched.pid).children()}
            return [seen for seen in clients if seen.pid in children]

        assert eventually(lambda: [states(seen) for seen in of_it()] == [["busy", "busy"]])
        # A task is known before all that it holds is counted.
        assert eventually(lambda: [all(w.leases for w in seen.pools[0].workers) for seen in of_it()] == [True])
        (seen,) = of_it()
        assert "wait_for" in seen.command
        assert seen.memory is not None


@contextlib.contextmanager
def segment(content: bytes) -> Iterator[str]:
    """An anonymous file that is called as a pool's segment is, sealed as that is; its path."""
    fd = os.memfd_create("shoal-pool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def test_what_is_no_pool_is_named_and_does_not_hide_the_others(pool: shoal.Pool) -> None:
    with segment(b"shoalpoo" + bytes(8192)) as path:
        with pytest.raises(shoal.ShoalError, match="damaged pool segment"):
            _engine.PoolOutside(path)
        onlooker = Onlooker([os.getpid()])
        # It could be one that is just being made: who says so at once would be wrong.
        assert onlooker.look().unreadable == ()
        seen = onlooker.look()
        assert seen.unreadable == (os.getpid(),)
        assert len(seen.clients) == 1
    assert onlooker.look().unreadable == ()


def test_no_damage_makes_a_look_fail_otherwise_than_with_an_error(pool: shoal.Pool) -> None:
    pool.map(abs, range(2))
    path = next(file.path for file in find()[os.getpid()].named(POOL))
    with open(path, "rb") as file:
        sound = file.read()
    places = random.Random(1)
    looks = 0
    for _ in range(200):
        content = bytearray(sound)
        for _ in range(places.choice((1, 20, 500))):
            # Most of the segment is rings, which nobody looks at: mostly the front.
            at = places.randrange(len(content) // 8 if places.random() < 0.1 else 4096) * 8
            struct.pack_into("<Q", content, at, places.choice((0, 1, 2**32, 2**63, 2**64 - 1, places.getrandbits(64))))
        with segment(bytes(content)) as damaged:
            try:
                outside = _engine.PoolOutside(damaged)
            except shoal.ShoalError:
                continue
            outside.look()
            looks += 1
    assert looks > 0


def test_what_is_no_file_of_shoal_is_refused() -> None:
    with open("/proc/self/status") as file, pytest.raises(shoal.ShoalError, match="damaged"):
        _engine.PoolOutside(f"/proc/self/fd/{file.fileno()}")
    reader, writer = os.pipe()
    try:
        with pytest.raises(shoal.ShoalError, match="damaged"):
            _engine.PoolOutside(f"/proc/self/fd/{reader}")
        with pytest.raises(FileNotFoundError):
            _engine.memory_outside("/proc/self/fd/1000000", [])
    finally:
        os.close(reader)
        os.close(writer)
