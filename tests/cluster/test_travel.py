"""What crosses to another node and back: arrays, shared things, what is printed; and how often."""

from __future__ import annotations

import functools
import gc
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

import shoal
from shoal.cluster.nodes import Nodes
from shoal.cluster.wire import pack, unpack
from tests.pool.support import ended, eventually


def writable_and_sum(array: Any, item: int = 0) -> tuple[bool, float]:
    return bool(array.flags.writeable), float(array.sum()) + item


def increment(array: Any, _item: int) -> float:
    array += 1
    return float(array[0])


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(100_000.0),
        numpy.arange(100_000.0).reshape(100, 1000).T,
        numpy.arange(100_000.0)[::3],
        numpy.zeros(0),
        numpy.array(3.5),
        numpy.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array([{"x": 1}, None]),
        numpy.broadcast_to(numpy.arange(9.0), (1000, 9)),
    ],
    ids=["large", "Fortran", "scattered", "empty", "scalar", "record", "objects", "read-only"],
)
@pytest.mark.parametrize("shared", [False, True], ids=["ordinary", "shared"])
def test_an_array_arrives_with_its_content_and_only_a_shared_one_is_read_only(array: Any, shared: bool) -> None:
    if shared and array.dtype.hasobject:
        pytest.skip("no shared array holds objects")
    sent = shoal.array(array) if shared else array
    back = unpack(*pack(sent))
    assert back.dtype == array.dtype and back.shape == array.shape
    assert numpy.array_equal(back, array)
    assert back.flags.writeable == (not shared)
    assert back.flags.aligned


def test_what_is_packed_is_a_copy_of_what_it_was() -> None:
    array = numpy.zeros(100_000)
    packed = pack(array)
    array += 1
    assert unpack(*packed).sum() == 0


def test_a_replica_says_why_it_cannot_be_written_to_and_its_copies_can(pool: shoal.Pool) -> None:
    def work(array: Any) -> tuple[str, float, bool]:
        try:
            array[0] = 7
        except ValueError as error:
            copy = array.copy()
            copy[0] = 7
            return str(error), float(copy[0] + (array + 1)[1]), (array + 1).flags.writeable
        return "", 0.0, False

    array = shoal.array([1.0, 2.0])
    message, total, writable = pool.apply(work, (array,))
    assert "can't be written to on another machine than its own" in message
    assert (total, writable, array[0]) == (10.0, True, 1.0)


def test_an_array_in_a_partial_crosses_once_a_node(pool: shoal.Pool, crossed: list[int]) -> None:
    array = numpy.ones(1 << 20)
    assert pool.map(functools.partial(writable_and_sum, array), range(40), chunksize=1) == [
        (True, float((1 << 20) + item)) for item in range(40)
    ]
    assert sum(crossed) < 2 * array.nbytes + (1 << 20)


def test_an_array_that_items_have_in_common_crosses_once_a_node(pool: shoal.Pool, crossed: list[int]) -> None:
    array = numpy.ones(1 << 20)
    assert pool.starmap(writable_and_sum, [(array, item) for item in range(40)]) == [
        (True, float((1 << 20) + item)) for item in range(40)
    ]
    assert sum(crossed) < 2 * array.nbytes + (1 << 20)


def test_items_that_have_an_array_in_common_see_nothing_of_each_other(pool: shoal.Pool) -> None:
    array = numpy.zeros(1 << 17)
    assert pool.starmap(increment, [(array, item) for item in range(40)]) == [1.0] * 40
    assert array[0] == 0


def test_what_a_task_prints_appears_here(pool: shoal.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(word: str) -> None:
        print(word)
        print(word, "too", file=sys.stderr)

    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    pool.map(speak, ["one", "two"])
    assert eventually(lambda: len(out.getvalue().split()) == 2 and len(err.getvalue().split()) == 4)
    assert sorted(out.getvalue().splitlines()) == ["one", "two"]
    assert sorted(err.getvalue().splitlines()) == ["one too", "two too"]


def test_a_bar_counts_the_items_that_are_done(pool: shoal.Pool) -> None:
    with shoal.tqdm(total=30, file=io.StringIO()) as bar:
        assert pool.map(abs, range(30), progress=bar) == list(range(30))
        assert list(pool.imap(abs, iter(range(12)), progress=bar)) == list(range(12))
        assert bar.n == 42


def test_with_a_seed_the_numbers_are_those_of_a_pool_of_this_machine(cluster: Any) -> None:
    def draw(count: int) -> list[int]:
        return list(shoal.rng().integers(1_000_000, size=count).tolist())

    with shoal.Pool(1, cluster=cluster, seed=42) as far, shoal.Pool(2, seed=42) as near:
        assert far.map(draw, range(5)) == near.map(draw, range(5))
        assert far.apply(draw, (3,)) == near.apply(draw, (3,))
        assert list(far.imap(draw, iter([1, 2]))) == list(near.imap(draw, iter([1, 2])))


def test_an_executor_runs_on_a_cluster(cluster: Any) -> None:
    with shoal.Executor(cluster=cluster) as executor:
        assert list(executor.map(pow, range(5), range(5))) == [1, 1, 4, 27, 256]
        assert executor.submit(pow, 2, 10).result() == 1024


@pytest.mark.slow
def test_a_program_runs_on_a_cluster_as_it_is(cluster: Any, tmp_path: Path) -> None:
    program = """
        import multiprocessing, os
        if __name__ == "__main__":
            with multiprocessing.Pool(7) as pool:
                print(pool.map(abs, range(-3, 3)), len(pool.workers))
    """
    trace = tmp_path / "run.json"
    done = _shoal_run(cluster.scheduler_address, textwrap.dedent(program), "--stats", "--trace", str(trace))
    # Both nodes are on this machine, and share its cores.
    workers = 2 * max(1, shoal.cpu_count() // 2)
    assert done.stdout == f"[3, 2, 1, 0, 1, 2] {workers}\n", done.stderr
    assert re.search(rf"shoal: pool 1 of {workers} workers\nnode +worker +pid .*\ntcp://", done.stderr)
    assert sum(event["ph"] == "X" for event in json.loads(trace.read_text())["traceEvents"]) >= 1


def test_a_cluster_that_is_not_there_is_an_error_before_the_program_runs() -> None:
    refused = _shoal_run("tcp://127.0.0.1:1", "print('ran')", DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "argument --cluster: there is no Dask scheduler at tcp://127.0.0.1:1" in refused.stderr


def _shoal_run(address: str, code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal", "run", *options, "--cluster", address, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
    )


def test_a_notebook_shows_the_pool_without_asking_its_nodes(pool: shoal.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Nodes, "workers")
    html = pool._repr_html_()
    assert html.startswith("<p>shoal.Pool, running: 2 workers on ")
    assert html.endswith("; 0 tasks queued, 0 under way</p>")


def test_a_forgotten_pool_is_told_of_and_ends_its_workers(cluster: Any) -> None:
    pool = shoal.Pool(1, cluster=cluster)
    workers = [psutil.Process(worker.pid) for worker in pool.workers if worker.pid is not None]
    assert len(workers) == 2
    with pytest.warns(ResourceWarning, match="unclosed running pool <shoal.Pool state=RUN pool_size=2 cluster="):
        del pool
        gc.collect()
    assert eventually(lambda: all(ended(worker) for worker in workers))


def test_joblib_runs_on_a_cluster(cluster: Any) -> None:
    joblib = pytest.importorskip("joblib")
    shoal.joblib.register()
    try:
        with joblib.parallel_config("shoal", cluster=cluster, n_jobs=2):
            assert joblib.Parallel()(joblib.delayed(pow)(2, number) for number in range(5)) == [1, 2, 4, 8, 16]
    finally:
        # The backend keeps its pools for the next call, and this cluster goes.
        from shoal.integrations.joblib import _pools

        for _, kept in [*_pools]:
            kept.terminate()


def test_a_node_is_given_up_after_some_time_in_any_case() -> None:
    with pytest.raises(ValueError, match="node_timeout must be a number of seconds"):
        shoal.Pool(1, cluster="tcp://127.0.0.1:1", node_timeout=float("inf"))
