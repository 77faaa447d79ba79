"""What holds for a pool on this machine holds for one on a cluster: the same tests, with the other pool.

What is left out is either about one machine, or differs and is listed in docs/deviations.md.
"""

from importlib import import_module
from typing import Any

COUNTER = "counts with a shoal.Counter"

LEFT_OUT = {
    "test_a_map_reads_no_further_ahead_of_what_is_done_than_the_buffer_size": COUNTER,
    "test_a_map_raises_what_its_input_raises_when_the_items_before_have_ended": COUNTER,
    "test_an_array_that_all_items_share_does_not_count_as_theirs": "a shared array is copied to other machines",
    "test_an_array_arrives_as_argument": "hypothesis wants a pool of its module",
    "test_an_array_arrives_as_result": "hypothesis wants a pool of its module",
    "test_an_array_comes_back_among_others": "hypothesis wants a pool of its module",
}


def _tests(module: str) -> dict[str, Any]:
    """The tests of a module that take a pool, under names that tell where they are from."""
    tests = {}
    for name, test in vars(import_module(f"tests.pool.{module}")).items():
        if name.startswith("test_") and name not in LEFT_OUT and "pool" in test.__annotations__:
            tests[f"{name}__{module}"] = test
    return tests


for _module in (
    "test_apply",
    "test_map",
    "test_imap",
    "test_async_results",
    "test_errors",
    "test_functions",
    "test_results",
    "test_streaming",
    "test_data_values",
    "test_regressions",
    "test_faults",
    "test_data_regressions",
):
    globals().update(_tests(_module))
