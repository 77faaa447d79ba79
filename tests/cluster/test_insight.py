"""What a pool on a cluster tells of its work: by node, and on the client's clock."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.cluster.account import slow_node, way
from shoal.cluster.nodes import Nodes
from shoal.cluster.questions import Question
from shoal.cluster.traces import Clock
from shoal.insight.report import NodeShare, Threads, reasons
from tests.insight.test_report import a_map


def nap(seconds: float) -> None:
    time.sleep(seconds)


def places(pool: shoal.Pool) -> dict[str, int | None]:
    """The process of the only worker of each node."""
    return {worker.node: worker.pid for worker in pool.workers}  # type: ignore[attr-defined]


def test_stats_name_the_node_of_each_worker_also_when_it_is_gone(cluster: Any) -> None:
    with shoal.Pool(1, cluster=cluster) as pool:
        nodes = places(pool)
        pool.map(nap, [0.01] * 20, chunksize=1)
        stats = pool.stats()
        assert {worker.node: worker.pid for worker in stats.workers} == nodes
        assert [worker.number for worker in stats.workers] == [0, 0]
        assert stats.tasks == 20
        assert sum(worker.user for worker in stats.workers) >= 20 * 0.01
        assert str(stats).splitlines()[0].split()[:3] == ["node", "worker", "pid"]
        assert [line.split()[0] for line in str(stats).splitlines()[1:4]] == [*sorted(nodes), "all"]
    pool.join()
    assert pool.stats().tasks == 20
    assert {(worker.node, worker.state) for worker in pool.stats().workers} == {(node, "gone") for node in nodes}


def test_a_trace_has_a_process_for_each_node_on_the_clock_of_this_one(pool: shoal.Pool, tmp_path: Path) -> None:
    nodes, path = places(pool), tmp_path / "run.json"
    before = time.monotonic_ns()
    with pool.trace(path) as trace:
        pool.map(nap, [0.02] * 10, chunksize=1)
        with pytest.raises(shoal.WorkerDied):
            pool.apply(lambda: os.kill(os.getpid(), signal.SIGKILL))
    after = time.monotonic_ns()
    assert [record.title.rpartition("node=")[2] for record in trace.pools] == sorted(nodes)
    assert len(trace.tasks) == 11
    for task in trace.tasks:
        assert before <= task.submitted <= task.started <= task.ended <= task.received <= after
    assert [(task.function, task.end, task.items) for task in trace.tasks[:10]] == [("nap", "value", 1)] * 10
    assert trace.tasks[-1].end == "died"
    for record in trace.pools:
        # All of it is one machine here: the clocks are the same, but for what is said of them.
        assert record.error is not None and 0 < record.error < (after - before) * 1e-9
        assert record.samples and all(before <= sample.time + record.error * 1e9 for sample in record.samples)
    events = json.loads(path.read_text())["traceEvents"]
    assert [event["args"]["labels"][:7] for event in events if event["name"] == "process_labels"] == ["clock ±"] * 2


def test_memory_is_looked_at_while_the_clocks_of_nodes_are_known(
    pool: shoal.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask_all = Nodes.ask_all

    def noted(nodes: Nodes, what: str, *arguments: Any) -> list[Question]:
        asked.append(what)
        return ask_all(nodes, what, *arguments)

    monkeypatch.setattr(Nodes, "ask_all", noted)
    with pool.trace():
        pass
    assert [what for what, _ in itertools.groupby(asked)] == ["time", "watch_memory", "memory", "time"]


def test_what_was_before_and_after_both_looks_at_a_clock_is_known_as_exactly() -> None:
    offset = 10**15

    def seen(moment: int, length: int, share: int) -> list[Question]:
        question = Question(None)  # type: ignore[arg-type]
        question.asked, question.told = moment, moment + length
        question.answer = moment + share * length + offset
        return [question]

    clock = Clock()
    # One answer took long to come, the other question long to arrive.
    clock.look(seen(0, 1_000_000, 0), False)
    clock.look(seen(10_000_000, 1_000_000, 1), True)
    for moment in (-1_000_000_000, 0, 5_000_000, 11_000_000, 1_000_000_000):
        assert clock.error is not None and abs(clock.here(moment + offset) - moment) <= clock.error * 1e9 + 1


@given(
    st.integers(-(10**15), 10**15), st.floats(-1e-4, 1e-4), st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 1)))
)
def test_the_clock_of_a_node_is_known_as_exactly_as_it_says(offset: int, drift: float, ways: list[Any]) -> None:
    def there(here: int) -> int:
        return here + offset + round(drift * here)

    clock = Clock()
    ends = (0, 10**12)
    for at_end, moment in enumerate(ends):
        questions = []
        for length, share in [*ways, (10**5, 0.5)]:
            question = Question(None)  # type: ignore[arg-type]
            question.asked, question.told = moment, moment + length
            question.answer = there(moment + round(share * length))
            questions.append(question)
        clock.look(questions, bool(at_end))
    assert clock.error is not None and clock.error <= 0.0001
    for moment in (*ends, 10**11, 7 * 10**11):
        # Beyond the error, what the drift itself makes of the moment at which the clock was read.
        assert abs(clock.here(there(moment)) - moment) <= clock.error * 1e9 + 1500


def test_a_map_is_explained_by_what_its_nodes_did(pool: shoal.Pool) -> None:
    nodes = places(pool)
    pool.map(nap, [0.01] * 20, chunksize=1)
    report = pool.explain()
    assert (report.function, report.items, report.tasks, report.workers) == ("nap", 20, 20, 2)
    assert {share.node for share in report.nodes} == set(nodes)
    assert sum(share.items for share in report.nodes) == 20
    assert report.user == pytest.approx(sum(share.user for share in report.nodes)) and report.user >= 0.2
    whole = (
        report.user
        + report.unpickling
        + report.pickling
        + report.transport
        + report.waiting
        + report.idle
        + report.starting
    )
    assert whole == pytest.approx(report.wall * report.workers, rel=0.05)
    assert report.reasons


def told(figures: dict[str, Any], nodes: tuple[NodeShare, ...] = (), results: int = 0) -> str:
    """The first reason that is given for a map of a second on four workers of two nodes."""
    map = a_map(nodes=nodes, **figures)
    return reasons(map, Threads(1, 4), way(map, results), slow_node(nodes))[0]


def test_what_cost_most_is_told_first() -> None:
    slow = (NodeShare("a", 2, 75, 75, 1.9), NodeShare("b", 2, 25, 25, 1.9))
    assert told({"user": 3.8}, slow) == "An item took node b 3 times as long as the others."
    assert "Nothing in the pool stood in its way" in told({"user": 3.8}, (NodeShare("a", 2, 50, 50, 1.9),) * 2)
    assert told({"user": 1.0, "transport": 3.0}).endswith("the workers 3 s: let each call do more.")
    assert "1 GB of arguments: what many calls need" in told({"user": 1.0, "transport": 3.0, "bytes": 10**9})
    assert "1 GB of results: return less" in told({"user": 1.0, "transport": 3.0}, results=10**9)


def test_without_a_map_there_is_nothing_to_explain(pool: shoal.Pool) -> None:
    with pytest.raises(ValueError, match="no map"):
        pool.explain()
