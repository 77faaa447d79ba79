"""What holds for a pool on this machine holds for one on a cluster: the same tests, with the other pool.

What is left out is either about one machine, or differs and is listed in docs/deviations.md.
"""

import types
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

import shoal
from tests.logs.test_records import kept

__all__ = ["kept"]

LEFT_OUT = {
    "test_a_map_reads_no_further_ahead_of_what_is_done_than_the_buffer_size": "asks for a count thousands of times",
    "test_a_result_may_hold_thousands_of_shared_objects": "these are made on a node",
    "test_an_array_that_all_items_share_does_not_count_as_theirs": "a shared array is copied to other machines",
    "test_tasks_behind_a_full_ring_run_though_all_before_them_died": "is about the ring of one machine",
    "test_every_place_counts_its_tasks": "places are numbered in their node, see test_insight",
    "test_it_prints_a_line_for_each_worker_and_one_for_all": "the lines begin with their node, see test_insight",
    "test_the_file_has_a_track_for_each_worker_and_its_tasks_on_it": "tracks are those of a node, see test_insight",
    "test_what_cannot_be_sent_does_not_count": "no item behind it is sent",
    "test_the_file_has_counters_of_the_queue_and_of_memory": "each node has a queue of its own",
    "test_a_record_says_where_it_comes_from": "it also says from which node, see test_said",
    "test_a_handler_may_use_the_pool_itself": "its pool is made when there is a handler, see test_said",
    "test_a_block_of_a_shared_array_is_a_view_of_it": "a shared array is copied to other machines",
    "test_workers_add_under_the_lock": "adds so often that it takes many seconds",
    "test_workers_take_turns": "a shared array is copied to other machines",
    "test_an_array_arrives_as_argument": "hypothesis wants a pool of its module",
    "test_an_array_arrives_as_result": "hypothesis wants a pool of its module",
    "test_an_array_comes_back_among_others": "hypothesis wants a pool of its module",
}


QUICK = ("pool.test_apply",)
SLOW = (
    "faults.test_deaths",
    "faults.test_options",
    "faults.test_priorities",
    "faults.test_retries",
    "faults.test_timeouts",
    "insight.test_report",
    "insight.test_stats",
    "insight.test_trace",
    "logs.test_records",
    "pool.test_async_results",
    "pool.test_map_array",
    "pool.test_data_regressions",
    "pool.test_data_values",
    "pool.test_errors",
    "pool.test_functions",
    "pool.test_imap",
    "pool.test_map",
    "pool.test_regressions",
    "pool.test_results",
    "pool.test_streaming",
    "queues.test_travel",
    "sync.test_anywhere",
    "sync.test_barrier",
    "sync.test_condition",
    "sync.test_counter",
    "sync.test_event",
    "sync.test_lock",
    "sync.test_rlock",
    "sync.test_semaphore",
    "sync.test_values",
)


@pytest.fixture(scope="module")
def workers(cluster: Any) -> Iterator[shoal.Pool]:
    """A pool for many tests."""
    with shoal.Pool(1, cluster=cluster) as pool:
        yield pool
    pool.join()


def _tests(module: str, *marks: Any) -> dict[str, Any]:
    """The tests of a module that take a pool, under names that tell where they are from."""
    tests = {}
    for name, test in vars(import_module(f"tests.{module}")).items():
        if name.startswith("test_") and name not in LEFT_OUT and test.__annotations__.keys() & {"pool", "workers"}:
            # A function of its own: its marks are not to be those of the original.
            copy = types.FunctionType(test.__code__, test.__globals__, name, test.__defaults__, test.__closure__)
            copy.__annotations__ = dict(test.__annotations__)
            copy.pytestmark = [*getattr(test, "pytestmark", []), *marks]  # type: ignore[attr-defined]
            tests[f"{name}__{module.replace('.', '_')}"] = copy
    return tests


for _module in QUICK:
    globals().update(_tests(_module))
for _module in SLOW:
    globals().update(_tests(_module, pytest.mark.slow))
