"""The file of a trace: Chrome's JSON, which https://ui.perfetto.dev and chrome://tracing show.

A pool is a process there, a worker a thread of it with its tasks; above them lies what waited in the queue, and what
was on its way back. Format: "Trace Event Format", by the Chromium project.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator

from shoal._text import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from shoal.insight.trace import PoolTrace, TaskRecord

# Beyond so many tasks, what was queued and on its way back is only told with the task: viewers get slow.
_MOST_SPANS = 50_000
# Points of a counter.
_POINTS = 2_000


def write(file: TextIO, pools: Iterable[PoolTrace], began: int) -> None:
    """Writes the trace; times count from `began`."""
    file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
    pools = list(pools)
    spans = sum(len(pool.tasks) for pool in pools) <= _MOST_SPANS
    left_out = 0
    first = True
    for number, pool in enumerate(pools, start=1):
        left_out += pool.left_out
        for event in _events(number, pool, began, spans):
            file.write(event if first else f",\n{event}")
            first = False
    file.write(f'\n],"otherData":{{"tool":"shoal","tasks left out":"{left_out}"}}}}\n')


def _events(process: int, pool: PoolTrace, began: int, spans: bool) -> Iterator[str]:
    yield _named("process_name", process, 0, pool.title)
    if pool.error:
        yield _labelled(process, f"clock ±{seconds(pool.error)}")
    for worker, pid in pool.workers.items():
        yield _named("thread_name", process, worker + 1, f"worker {worker}" + (f", process {pid}" if pid else ""))
    names = {task.function: json.dumps(task.function) for task in pool.tasks}
    for number, task in enumerate(pool.tasks):
        submitted, started, ended, received = (_micros(moment, began) for moment in task[:4])
        lasted, waited, back = (
            f"{max(end - begin, 0) / 1e3:.3f}"
            for begin, end in ((task[1], task[2]), (task[0], task[1]), (task[2], task[3]))
        )
        name, where = names[task.function], f'"pid":{process},"tid":{task.worker + 1}'
        yield (
            f'{{"ph":"X","cat":"task","name":{name},{where},"ts":{started},"dur":{lasted},"args":{{"task":{number},'
            f'"items":{task.items},"end":"{task.end}","submitted_us":{submitted},"queued_us":{waited},'
            f'"received_us":{received},"result_us":{back},"bytes_in":{task.bytes_in},"bytes_out":{task.bytes_out}}}}}'
        )
        if spans:
            for span, begin, end in (("queued", submitted, started), ("result", ended, received)):
                head = f'"cat":"{span}","name":"{span}","id":"{process}.{number}",{where}'
                yield f'{{"ph":"b",{head},"ts":{begin}}}'
                yield f'{{"ph":"e",{head},"ts":{end}}}'
    for moment, depth in queue_depth(pool.tasks):
        yield _counted("queue depth", process, _micros(moment, began), {"tasks": depth})
    for sample in pool.samples:
        memory = {"shared": sample.shared, **{f"worker {worker}": held for worker, held in sample.private.items()}}
        yield _counted("memory", process, _micros(sample.time, began), memory)


def queue_depth(tasks: Iterable[TaskRecord], points: int = _POINTS) -> list[tuple[int, int]]:
    """How many tasks waited for a worker, after each moment; of many moments close together the highest."""
    begins = sorted(task.submitted for task in tasks)
    ends = sorted(task.started for task in tasks)
    if not begins:
        return []
    step = max((ends[-1] - begins[0]) // points, 1)
    depth, depths = 0, list[tuple[int, int]]()
    # A task leaves the queue not before it has entered it, whatever two clocks on two CPUs say.
    for moment, change in heapq.merge(((begin, 1) for begin in begins), ((end, -1) for end in ends)):
        depth += change
        if depths and (moment - begins[0]) // step == (depths[-1][0] - begins[0]) // step:
            depths[-1] = (depths[-1][0], max(depths[-1][1], depth))
        else:
            depths.append((moment, depth))
    depths.append((ends[-1] + step, depth))
    return depths


def _micros(moment: int, began: int) -> str:
    return f"{(moment - began) / 1e3:.3f}"


def _named(what: str, process: int, thread: int, name: str) -> str:
    return json.dumps({"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}})


def _labelled(process: int, label: str) -> str:
    return json.dumps({"ph": "M", "name": "process_labels", "pid": process, "tid": 0, "args": {"labels": label}})


def _counted(name: str, process: int, moment: str, values: dict[str, int]) -> str:
    return f'{{"ph":"C","name":"{name}","pid":{process},"tid":0,"ts":{moment},"args":{json.dumps(values)}}}'
