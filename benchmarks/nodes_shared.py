"""What queues, locks, events and counters cost on a node of a cluster whose client has them; beside Dask's own.

Each is used by one task of a node while nothing else runs: a question and its answer cross the network.
"""

import time
from collections.abc import Callable
from typing import Any

from shoal.bench.harness import Figure, Measurement, Scale
from shoal.bench.peers import SHOAL

from .nodes import _dask_cluster

BOTH = (SHOAL, "dask")


def _seconds(act: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - started) / times


def _queue(contender: str, scale: Scale) -> tuple[float | None, ...]:
    """Small items from a node to its client, one by one and many at a time; and back."""
    times = scale.pick(1_000, 100)

    def put(items: Any) -> float:
        return _seconds(lambda: items.put(1), times)

    def get(items: Any) -> float:
        return _seconds(items.get, times)

    def put_many(items: Any, count: int) -> float:
        return _seconds(lambda: items.put_many(range(count)), 1) / count

    with _dask_cluster() as client:
        if contender != SHOAL:
            from distributed import Queue

            theirs = Queue("items", client=client)
            return *(1 / client.submit(act, theirs, pure=False).result() / 1e3 for act in (put, get)), None
        import shoal

        with shoal.Pool(1, cluster=client) as pool:
            ours = shoal.Queue()
            seconds = [pool.apply(act, (ours,)) for act in (put, get)]
            seconds.append(pool.apply(put_many, (ours, scale.pick(100_000, 5_000))))
            return tuple(1 / each / 1e3 for each in seconds)


def _lock(contender: str, scale: Scale) -> tuple[float, float]:
    """A lock taken and given back by a task; an event looked at."""
    times = scale.pick(1_000, 100)

    def pair(lock: Any) -> float:
        def act() -> None:
            lock.acquire()
            lock.release()

        return _seconds(act, times)

    def look(event: Any) -> float:
        return _seconds(event.is_set, times)

    with _dask_cluster() as client:
        if contender != SHOAL:
            from distributed import Event, Lock

            seconds = [
                client.submit(act, thing, pure=False).result()
                for act, thing in ((pair, Lock("lock")), (look, Event("event")))
            ]
        else:
            import shoal

            with shoal.Pool(1, cluster=client) as pool:
                seconds = [pool.apply(act, (thing,)) for act, thing in ((pair, shoal.Lock()), (look, shoal.Event()))]
    return seconds[0] * 1e6, seconds[1] * 1e6


def _counter(contender: str, scale: Scale) -> tuple[float, float]:
    """A counter counted up by a task, with the value asked for, and without."""
    import shoal

    times = scale.pick(1_000, 100)

    def add(counter: Any) -> float:
        return _seconds(counter.add, times)

    def count(counter: Any) -> float:
        started = time.perf_counter()
        for _ in range(20 * times):
            counter += 1
        counter.add()  # when all of it is done
        return (time.perf_counter() - started) / times / 20

    with _dask_cluster() as client, shoal.Pool(1, cluster=client) as pool:
        counter = shoal.Counter()
        seconds = [pool.apply(act, (counter,)) for act in (add, count)]
    return 1 / seconds[0] / 1e3, 1 / seconds[1] / 1e3


MEASUREMENTS = (
    Measurement(
        (
            Figure("cluster-put", "cluster: a node's small items into a queue of the client", "k/s", True),
            Figure("cluster-get", "    out of it", "k/s", True),
            Figure("cluster-put-many", "    into it by put_many", "k/s", True),
        ),
        _queue,
        rounds=3,
        contenders=BOTH,
    ),
    Measurement(
        (
            Figure("cluster-lock", "cluster: a client's lock, taken and given back by a node", "µs", False),
            Figure("cluster-event", "    an event, looked at", "µs", False),
        ),
        _lock,
        rounds=3,
        contenders=BOTH,
    ),
    Measurement(
        (
            Figure("cluster-add", "cluster: a client's counter, counted up by a node", "k/s", True),
            Figure("cluster-count", "    without asking for the value: counter += 1", "k/s", True),
        ),
        _counter,
        rounds=3,
        contenders=(SHOAL,),
    ),
)
