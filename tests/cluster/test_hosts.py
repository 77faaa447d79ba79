"""Nodes on hosts of their own, with a cable each: cut off, slow, frozen, late; the client and the scheduler cut off."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

import shoal
from tests.cluster.hosts import Hosts, hosts, missing
from tests.pool import tasks
from tests.pool.support import ended, eventually

# Each starts processes of Dask's, which takes seconds, and waits for the patience of one side or the other.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def all_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A scheduler on a host of its own; the tests are on another."""
    if reason := missing():
        pytest.skip(reason)
    with hosts(tmp_path_factory.mktemp("hosts")) as started:
        yield started


@pytest.fixture
def network(all_hosts: Hosts) -> Iterator[Hosts]:
    """The same, to which a test adds nodes."""
    yield all_hosts
    all_hosts.mend("scheduler")
    for name in list(all_hosts.processes):
        if name != "scheduler":
            all_hosts.kill(name)
    assert eventually(lambda: not all_hosts.known())


def begun(folder: Path, name: str, gate: Path) -> str:
    """Says on which host it runs, and waits; the host."""
    host = socket.gethostname()
    (folder / f"{name}.{host}").touch()
    tasks.wait_for(gate)
    return host


def noted(notes: Path, item: int) -> int:
    """Writes down on which host it runs; the item."""
    time.sleep(0.005)
    with notes.open("a") as file:
        file.write(f"{socket.gethostname()}\n")
    return item


def counts(notes: Path) -> Counter[str]:
    """How many tasks have run on each host."""
    return Counter(notes.read_text().split() if notes.exists() else ())


def one_on_each(pool: shoal.Pool, folder: Path, gate: Path) -> dict[str, Any]:
    """The results of two tasks that run, each on a host of its own, until the gate is there; by host."""
    folder.mkdir()
    results = {name: pool.apply_async(begun, (folder, name, gate)) for name in ("x", "y")}
    assert eventually(lambda: len(list(folder.iterdir())) == 2)
    return {path.suffix[1:]: results[path.stem] for path in folder.iterdir()}


def nodes_of(pool: shoal.Pool) -> set[str]:
    """The addresses of a pool's nodes."""
    return {worker.node for worker in pool.workers}  # type: ignore[attr-defined]


def workers_on(network: Hosts, pool: shoal.Pool, name: str) -> list[psutil.Process]:
    """The processes of a pool's workers on a host."""
    address = network.host(name).address
    numbers = [worker.pid for worker in pool.workers if f"//{address}:" in worker.node]  # type: ignore[attr-defined]
    return [network.host(name).process(number) for number in numbers]


def sum_from(array: Any, item: int) -> float:
    return float(array[item:].sum())


def shared_memory_files(_: int) -> tuple[str, int, list[str]]:
    """The host, and what it has for /dev/shm."""
    return socket.gethostname(), os.stat("/dev/shm").st_dev, os.listdir("/dev/shm")


def host_and_size(array: Any) -> tuple[str, int]:
    return socket.gethostname(), array.nbytes


def test_a_map_runs_on_all_hosts_each_with_memory_of_its_own(network: Hosts, tmp_path: Path) -> None:
    network.nodes("a", "b")
    gate = tmp_path / "gate"
    with shoal.Pool(1, cluster=network.address) as pool:
        results = one_on_each(pool, tmp_path / "begun", gate)
        gate.touch()
        assert {host: result.get() for host, result in results.items()} == {"a": "a", "b": "b"}
        array = numpy.arange(100_000.0)
        sums = pool.map(functools.partial(sum_from, array), range(0, 100_000, 500))
        assert sums == [sum_from(array, item) for item in range(0, 100_000, 500)]
        found = {host: (device, names) for host, device, names in pool.map(shared_memory_files, range(200), 1)}
        assert all(names == [] and device != os.stat("/dev/shm").st_dev for device, names in found.values())


def test_of_a_host_cut_off_what_ran_fails_and_the_rest_moves(network: Hosts, tmp_path: Path) -> None:
    addresses = network.nodes("a", "b")
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    with shoal.Pool(1, cluster=network.address, node_timeout=10) as pool:
        running = one_on_each(pool, tmp_path / "begun", gate)
        later = [pool.apply_async(noted, (notes, number)) for number in range(20)]
        network.cut("a")
        with pytest.raises(shoal.WorkerDied, match=rf"node {addresses['a']}: .*it has not answered for 10 s") as caught:
            running["a"].get()
        assert caught.value.node == addresses["a"]
        assert not running["b"].ready()
        gate.touch()
        assert running["b"].get() == "b"
        assert [result.get() for result in later] == list(range(20))
        assert counts(notes)["b"] == 20


def test_a_host_that_is_back_joins_anew_and_its_old_pool_is_gone(network: Hosts, tmp_path: Path) -> None:
    addresses = network.nodes("a", "b")
    gate = tmp_path / "gate"
    with shoal.Pool(1, cluster=network.address, node_timeout=10, retries=1) as pool:
        results = one_on_each(pool, tmp_path / "begun", gate)
        old = workers_on(network, pool, "a")
        network.cut("a")
        assert eventually(lambda: nodes_of(pool) == {addresses["b"]})
        gate.touch()
        assert [results["a"].get(), results["b"].get()] == ["b", "b"]
        network.mend("a")
        assert eventually(lambda: all(ended(worker) for worker in old))
        assert eventually(lambda: nodes_of(pool) == set(addresses.values()))
        gate = tmp_path / "gate again"  # the first one is open: one host could do both, one after the other
        again = one_on_each(pool, tmp_path / "again", gate)
        gate.touch()
        assert {host: result.get() for host, result in again.items()} == {"a": "a", "b": "b"}


def test_a_cut_that_is_mended_in_time_costs_nothing_but_time(network: Hosts, tmp_path: Path) -> None:
    network.nodes("a", "b")
    notes, enough = tmp_path / "notes", threading.Event()
    with shoal.Pool(1, cluster=network.address, node_timeout=100) as pool:
        workers = {(worker.node, worker.pid) for worker in pool.workers}  # type: ignore[attr-defined]
        numbers = itertools.takewhile(lambda _: not enough.is_set(), itertools.count())
        # Without buffersize= all of the input would be read first, and it has no end.
        job = pool.map_async(functools.partial(noted, notes), numbers, buffersize=256)
        assert eventually(lambda: counts(notes).keys() == {"a", "b"})
        network.cut("a")
        at_cut = counts(notes)
        assert eventually(lambda: counts(notes)["b"] > at_cut["b"] + 100)
        assert counts(notes)["a"] < at_cut["a"] + 100
        network.mend("a")
        assert eventually(lambda: counts(notes)["a"] > at_cut["a"] + 100)
        enough.set()
        done = job.get()
        assert done == list(range(len(done)))
        assert counts(notes).total() == len(done)
        assert {(worker.node, worker.pid) for worker in pool.workers} == workers  # type: ignore[attr-defined]


def test_a_host_behind_a_slow_cable_gets_less_and_loses_nothing(network: Hosts) -> None:
    network.nodes("a", "b")
    # Noise, as what can be compressed is.
    arrays = [numpy.random.default_rng(number).integers(256, size=50_000, dtype="u1") for number in range(80)]
    with shoal.Pool(1, cluster=network.address) as pool:
        network.slow_down("a")
        results = pool.map(host_and_size, arrays, 1)
        assert [size for _, size in results] == [50_000] * 80
        hosts_of_tasks = Counter(host for host, _ in results)
        assert hosts_of_tasks["b"] > hosts_of_tasks["a"]


def test_when_the_client_is_cut_off_no_pool_stays(network: Hosts, tmp_path: Path) -> None:
    # Nobody tells them: they wait until TCP gives up, which Dask wants to be half a minute.
    addresses = network.nodes("a", "b", DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP="12s")
    source = f"""
        import pathlib, shoal, time
        pool = shoal.Pool(1, cluster={network.address!r}, node_timeout=10)
        results = [pool.apply_async(time.sleep, (1000,)) for _ in range(2)]
        pathlib.Path({str(tmp_path / "numbers")!r}).write_text(" ".join(f"{{w.node}}={{w.pid}}" for w in pool.workers))
        pathlib.Path({str(tmp_path / "ready")!r}).touch()
        time.sleep(1000)
    """
    network.run("laptop", sys.executable, "-c", textwrap.dedent(source))
    assert eventually((tmp_path / "ready").exists)
    names = {address: name for name, address in addresses.items()}
    found = [entry.split("=") for entry in (tmp_path / "numbers").read_text().split()]
    workers = [network.host(names[node]).process(int(number)) for node, number in found]
    assert len(workers) == 2
    network.cut("laptop")
    assert eventually(lambda: all(ended(worker) for worker in workers))
    with shoal.Pool(1, cluster=network.address) as pool:
        assert nodes_of(pool) == set(addresses.values())


def test_when_the_scheduler_is_cut_off_all_tasks_fail_and_the_nodes_end_their_pools(
    network: Hosts, tmp_path: Path
) -> None:
    network.nodes("a")
    with shoal.Pool(1, cluster=network.address, node_timeout=10) as pool:
        workers = workers_on(network, pool, "a")
        result = pool.apply_async(tasks.wait_for, (tmp_path / "never",))
        network.cut("scheduler")
        with pytest.raises(shoal.ShoalError, match=f"scheduler at {network.address} is gone"):
            result.get()
        with pytest.raises(shoal.ShoalError, match="is gone"):
            pool.apply(abs, (1,))
        assert eventually(lambda: all(ended(worker) for worker in workers))


def test_a_frozen_node_that_wakes_ends_its_pool_and_what_it_did_counts_once(network: Hosts, tmp_path: Path) -> None:
    addresses = network.nodes("a", "b")
    gate = tmp_path / "gate"
    with shoal.Pool(1, cluster=network.address, node_timeout=10, retries=1) as pool:
        results = one_on_each(pool, tmp_path / "begun", gate)
        old = workers_on(network, pool, "a")
        network.freeze("a")
        gate.touch()
        # What the frozen one would say of its task is not waited for.
        assert [results["a"].get(), results["b"].get()] == ["b", "b"]
        network.wake("a")
        assert eventually(lambda: all(ended(worker) for worker in old))
        assert eventually(lambda: nodes_of(pool) == set(addresses.values()))
        assert pool.map(abs, range(1000), 1) == list(range(1000))


def test_a_pool_ends_while_one_of_its_nodes_is_frozen(network: Hosts) -> None:
    addresses = network.nodes("a", "b")
    with shoal.Pool(1, cluster=network.address, node_timeout=10) as pool:
        network.freeze("a")
        assert eventually(lambda: nodes_of(pool) == {addresses["b"]})
        assert pool.map(abs, range(100)) == list(range(100))
        pool.close()
        pool.join()


def test_a_host_that_joins_late_gets_work(network: Hosts, tmp_path: Path) -> None:
    network.nodes("a")
    folder, gate = tmp_path / "begun", tmp_path / "gate"
    folder.mkdir()
    with shoal.Pool(1, cluster=network.address) as pool:
        results = [pool.apply_async(begun, (folder, str(number), gate)) for number in range(3)]
        assert eventually(lambda: len(list(folder.iterdir())) == 1)
        network.nodes("b")
        assert eventually(lambda: len(list(folder.iterdir())) == 2)
        gate.touch()
        assert {result.get() for result in results} == {"a", "b"}
