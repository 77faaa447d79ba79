"""Nodes that end, freeze or join; the end of the client and of the scheduler."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from tests.cluster.processes import Machines, machines
from tests.pool import tasks
from tests.pool.support import client, ended, eventually

# Each starts processes of Dask's, which takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A scheduler, to which each test adds nodes."""
    with machines(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def two(scheduler: Machines) -> Iterator[tuple[Machines, dict[str, str]]]:
    """The addresses of two nodes, "a" and "b", that are there for one test."""
    addresses = {name: scheduler.node(name) for name in ("a", "b")}
    yield scheduler, addresses
    for name in list(scheduler.processes):
        if name != "scheduler":
            scheduler.kill(name)
    assert eventually(lambda: not scheduler.known())


def begun(folder: Path, name: str, gate: Path) -> str:
    """A task that says where it runs, and waits."""
    (folder / f"{name}.{os.getppid()}.{os.getpid()}").touch()
    tasks.wait_for(gate)
    return name


def where(pool: shoal.Pool) -> dict[str, str]:
    """The node of each worker of a pool, by process."""
    return {str(worker.pid): worker.node for worker in pool.workers}  # type: ignore[attr-defined]


def places(folder: Path) -> dict[str, str]:
    """The process that runs each task that has begun."""
    return {path.name.split(".")[0]: path.name.split(".")[2] for path in folder.iterdir()}


def test_a_killed_node_fails_what_it_ran_and_the_rest_moves(two: Any, tmp_path: Path) -> None:
    scheduler, addresses = two
    folder, gate, notes = tmp_path / "begun", tmp_path / "gate", tmp_path / "notes"
    folder.mkdir()
    with shoal.Pool(1, cluster=scheduler.address) as pool:
        nodes = where(pool)
        first = {name: pool.apply_async(begun, (folder, name, gate)) for name in ("x", "y")}
        assert eventually(lambda: len(places(folder)) == 2)
        later = [pool.apply_async(tasks.note, (notes,)) for _ in range(20)]
        lost = next(name for name, pid in places(folder).items() if nodes[pid] == addresses["a"])
        scheduler.kill("a")
        with pytest.raises(shoal.WorkerDied, match=rf"node {addresses['a']}: its node was lost.*begun\(.*'{lost}'"):
            first[lost].get()
        gate.touch()
        kept = "y" if lost == "x" else "x"
        assert first[kept].get() == kept
        assert [result.get() for result in later] == [None] * 20
        assert len(notes.read_text().splitlines()) == 20
        assert {worker.node for worker in pool.workers} == {addresses["b"]}  # type: ignore[attr-defined]


def test_a_task_with_retries_is_tried_again_on_another_node(two: Any, tmp_path: Path) -> None:
    scheduler, addresses = two
    folder, gate = tmp_path / "begun", tmp_path / "gate"
    folder.mkdir()
    with shoal.Pool(1, cluster=scheduler.address, retries=1) as pool:
        nodes = where(pool)
        results = [pool.apply_async(begun, (folder, name, gate)) for name in ("x", "y")]
        assert eventually(lambda: len(places(folder)) == 2)
        assert addresses["a"] in {nodes[pid] for pid in places(folder).values()}
        scheduler.kill("a")
        gate.touch()
        assert [result.get() for result in results] == ["x", "y"]


def test_a_killed_worker_fails_its_task_alone(two: Any) -> None:
    scheduler, addresses = two
    with shoal.Pool(1, cluster=scheduler.address) as pool:
        results = [pool.apply_async(tasks.die_by, (signal.SIGKILL,)), *(pool.apply_async(abs, (-n,)) for n in range(9))]
        with pytest.raises(shoal.WorkerDied, match=r"SIGKILL.*die_by\(") as caught:
            results[0].get()
        assert caught.value.node in addresses.values()
        assert [result.get() for result in results[1:]] == list(range(9))


def test_what_a_killed_node_held_passes_on_and_who_waited_there_waits_no_more(two: Any) -> None:
    scheduler, addresses = two
    lock, semaphore, items, begun = shoal.Lock(), shoal.Semaphore(1), shoal.Queue(), shoal.Queue()

    def wait() -> Any:
        begun.put(os.getpid())
        return items.get()

    def hold() -> Any:
        lock.acquire()
        semaphore.acquire()
        return wait()

    with shoal.Pool(1, cluster=scheduler.address) as pool:
        nodes = where(pool)
        holder = pool.apply_async(hold)
        held = nodes[str(begun.get())]
        waiting = pool.apply_async(wait)
        begun.get()
        scheduler.kill(next(name for name, address in addresses.items() if address == held))
        with pytest.raises(shoal.WorkerDied, match="its node was lost"):
            holder.get()
        with lock:
            assert lock.abandoned
        assert semaphore.acquire(timeout=60)
        items.put("for who is left")
        assert waiting.get() == "for who is left"


def test_what_is_at_home_on_a_killed_node_is_gone_and_says_so(two: Any) -> None:
    scheduler, _ = two
    begun = shoal.Event()

    def wait(items: Any) -> Any:
        begun.set()
        return items.get()

    with shoal.Pool(1, cluster=scheduler.address) as pool:
        items = pool.apply(shoal.Queue)
        home = items._way.link.node
        waiting = pool.apply_async(wait, (items,))
        assert begun.wait(60)
        name = next(name for name, address in two[1].items() if address == home)
        scheduler.kill(name)
        with pytest.raises(shoal.ShoalError, match=f"at home on node {home} is gone|its node was lost"):
            waiting.get()
        with pytest.raises(shoal.ShoalError, match=f"at home on node {home} is gone"):
            items.put(1)


def test_a_node_that_joins_gets_work(two: Any, tmp_path: Path) -> None:
    scheduler, _ = two
    folder, gate = tmp_path / "begun", tmp_path / "gate"
    folder.mkdir()
    with shoal.Pool(1, cluster=scheduler.address) as pool:
        results = [pool.apply_async(begun, (folder, str(number), gate)) for number in range(3)]
        assert eventually(lambda: len(places(folder)) == 2)
        joined = scheduler.node("c")
        assert eventually(lambda: len(places(folder)) == 3)
        assert joined in {where(pool).get(pid) for pid in places(folder).values()}
        gate.touch()
        assert [result.get() for result in results] == ["0", "1", "2"]


def test_when_the_client_is_killed_no_pool_stays(two: Any, tmp_path: Path) -> None:
    scheduler, addresses = two
    source = f"""
        import pathlib, shoal, time
        pool = shoal.Pool(2, cluster={scheduler.address!r})
        results = [pool.apply_async(time.sleep, (1000,)) for _ in range(4)]
        pathlib.Path("pids").write_text(" ".join(str(worker.pid) for worker in pool.workers))
        pathlib.Path("ready").touch()
        time.sleep(1000)
    """
    with client(textwrap.dedent(source), tmp_path) as program:
        workers = [psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
        assert len(workers) == 4
        program.kill()
        assert eventually(lambda: all(ended(worker) for worker in workers))
    with shoal.Pool(1, cluster=scheduler.address) as pool:
        assert {worker.node for worker in pool.workers} == set(addresses.values())  # type: ignore[attr-defined]


def test_the_end_of_the_scheduler_is_an_error_at_once(tmp_path: Path) -> None:
    with machines(tmp_path, "a") as cluster, shoal.Pool(1, cluster=cluster.address) as pool:
        result = pool.apply_async(tasks.wait_for, (tmp_path / "never",))
        cluster.kill("scheduler")
        with pytest.raises(shoal.ShoalError, match=f"scheduler at {cluster.address} is gone"):
            result.get()
        with pytest.raises(shoal.ShoalError, match="is gone"):
            pool.apply(abs, (1,))


def test_a_frozen_scheduler_is_given_up(tmp_path: Path) -> None:
    with machines(tmp_path, "a") as cluster, shoal.Pool(1, cluster=cluster.address, node_timeout=10) as pool:
        result = pool.apply_async(tasks.wait_for, (tmp_path / "never",))
        cluster.processes["scheduler"].send_signal(signal.SIGSTOP)
        # It accepts connections, as the kernel does that for it, and says nothing on them.
        with pytest.raises(shoal.ShoalError, match=f"scheduler at {cluster.address} is gone: it does not answer"):
            result.get()
        cluster.processes["scheduler"].send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_frozen_node_is_given_up(two: Any, tmp_path: Path) -> None:
    scheduler, addresses = two
    folder, gate = tmp_path / "begun", tmp_path / "gate"
    folder.mkdir()
    with shoal.Pool(1, cluster=scheduler.address, node_timeout=10) as pool:
        nodes = where(pool)
        results = {name: pool.apply_async(begun, (folder, name, gate)) for name in ("x", "y")}
        assert eventually(lambda: len(places(folder)) == 2)
        lost = next(name for name, pid in places(folder).items() if nodes[pid] == addresses["a"])
        scheduler.processes["a"].send_signal(signal.SIGSTOP)
        with pytest.raises(shoal.WorkerDied, match="it has not answered for 10 s"):
            results.pop(lost).get()
        gate.touch()
        ((kept, result),) = results.items()
        assert result.get() == kept


def test_one_by_address_may_be_ended_as_often_as_one_likes(cluster: Any) -> None:
    pool = shoal.Pool(1, cluster=cluster.scheduler_address)
    results = pool.imap(abs, iter([-1, -2]))
    assert next(results) == 1
    view = pool.options(timeout=60)
    with pool:
        pass
    pool.close()
    pool.terminate()
    pool.join()
    assert repr(view).startswith("<shoal.Pool state=TERMINATE")
    with shoal.Executor(1, cluster=cluster.scheduler_address) as executor:
        assert executor.submit(abs, -1).result() == 1
        executor.shutdown()
    executor.shutdown()
