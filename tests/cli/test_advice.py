"""What ``shoal bench`` says in words follows from the figures: made-up ones here."""

import pytest

from shoal.bench.advice import advice, paragraphs
from shoal.bench.groups import MEASUREMENTS


def said(**figures: dict[str, float]) -> list[str]:
    return advice({key.replace("_", "-"): values for key, values in figures.items()})


def only(**figures: dict[str, float]) -> str:
    (sentence,) = said(**figures)
    return sentence


def test_without_figures_nothing_is_said() -> None:
    assert advice({}) == []
    assert said(job_python={}, map_1={}, queue_small={}, first_result={}, death_seen={}) == []
    # Half of a comparison is none.
    assert said(job_python={"threads": 1.0}) == said(job_python={"shoal": 2.0}) == []


def test_where_processes_gain_more_they_are_advised() -> None:
    assert only(job_python={"shoal": 1.94, "multiprocessing": 1.95, "threads": 0.97}) == (
        "Python code: processes. Threads were 1.0 × as fast as a loop, processes (shoal) 1.9 ×."
    )


def test_where_threads_gain_about_as_much_they_are_advised() -> None:
    assert only(job_numpy={"shoal": 1.9, "threads": 1.85}).startswith("numpy on large arrays: threads will do")
    assert only(job_waiting={"shoal": 2.0, "threads": 2.0}).startswith("Waiting, for servers or disks: threads will do")


def test_without_a_second_core_neither_is_advised() -> None:
    sentence = only(job_python={"shoal": 1.1, "threads": 0.9})
    assert "Neither had a second core" in sentence and "shoal doctor" in sentence


def test_without_shoal_the_best_of_the_others_speaks_for_processes() -> None:
    sentence = only(job_python={"multiprocessing": 1.7, "joblib": 1.8, "threads": 1.0})
    assert "processes (joblib) 1.8 ×" in sentence


def test_what_small_tasks_cost_tells_when_to_bundle_them() -> None:
    sentence = only(map_1={"shoal": 1_250.0, "threads": 500.0, "multiprocessing": 62.5, "ray": 5.0})
    assert "costs 800 ns with shoal, 2.0 µs with threads, 16 µs with multiprocessing." in sentence
    assert "less than 8.0 µs" in sentence and "shoal's map" in sentence


def test_large_arguments_tell_when_memory_is_to_be_shared() -> None:
    figures = {"argument_100mb": {"shoal": 5.2, "multiprocessing": 404.0}, "argument_shared": {"shoal": 12.0}}
    sentence = only(**figures)
    assert "100 MB take 5.2 ms with shoal, 404 ms with multiprocessing; threads move nothing." in sentence
    assert "takes 12 µs: shared memory for" in sentence and "less than 52 ms on 100 MB" in sentence
    assert "shoal.array" not in only(argument_100mb=figures["argument_100mb"])


def test_noise_below_zero_is_no_time_at_all() -> None:
    assert "takes no time that can be measured with shoal, 1.2 s with multi" in only(
        result_64mb_transport={"shoal": -0.4, "multiprocessing": 1_200.0}
    )


def test_the_best_queue_of_a_tool_speaks_for_it() -> None:
    queues = {"shoal": 2.0, "multiprocessing Queue": 0.1, "multiprocessing SimpleQueue": 0.25, "faster-fifo": 0.5}
    sentence = only(queue_small=queues, lock={"shoal": 40.0, "multiprocessing": 180.0})
    assert "an item takes 500 ns with shoal, 4.0 µs with multiprocessing through a queue" in sentence
    assert "a lock 40 ns with shoal, 180 ns with multiprocessing" in sentence


def test_a_job_that_is_shorter_than_the_start_of_a_pool_needs_none() -> None:
    sentence = only(first_result={"shoal": 60.0, "multiprocessing fork": 50.0, "joblib loky": 300.0})
    assert "60 ms with shoal, 50 ms with multiprocessing fork, 300 ms with joblib loky" in sentence
    assert "less than 100 ms" in sentence


def test_what_a_death_leaves_is_told_of_each() -> None:
    sentence = only(death_seen={"shoal": 0.5, "executor": 3.0}, death_replaced={"shoal": 9.0, "executor": 30.0})
    assert "after 500 µs" in sentence and "9.0 ms after the death" in sentence
    assert "a new one gave a result 30 ms after the death" in sentence


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("job-python", "×"),
        ("job-numpy", "×"),
        ("job-waiting", "×"),
        ("map-1", "k/s"),
        ("argument-100mb", "ms"),
        ("argument-shared", "µs"),
        ("result-64mb-transport", "ms"),
        ("queue-small", "M/s"),
        ("lock", "ns"),
        ("first-result", "ms"),
        ("death-seen", "ms"),
        ("death-replaced", "ms"),
    ],
)
def test_the_figures_that_are_read_have_the_units_that_are_read(key: str, unit: str) -> None:
    units = {figure.key: figure.unit for group in MEASUREMENTS.values() for figure in group.figures}
    assert units[key] == unit


def test_paragraphs_fit_the_terminal() -> None:
    lines = paragraphs(["word " * 60, "Another."], 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("  word") and lines[1].startswith("      word") and lines[-1] == "  Another."
