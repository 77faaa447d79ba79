"""``shoal demo`` as a user runs it."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("skimage")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "shoal", "demo", *arguments], capture_output=True, text=True)


def test_a_quick_run_is_equal_to_the_serial_run_and_shows_three_columns_of_times() -> None:
    done = demo("--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    head = re.search(r"^step +serial numpy +multiprocessing +shoal ", done.stdout, re.MULTILINE)
    assert head, done.stdout
    for step in ("features of", "reset of", "all"):
        assert re.search(rf"^{step}.*? {{2}}\d+\.\d+ s +\d+\.\d+ s +\d+\.\d+ s ", done.stdout, re.MULTILINE), (
            done.stdout
        )
    for way in ("multiprocessing", "shoal"):
        assert f"{way}: equal to the serial run in every byte" in done.stdout


def test_size_positions_and_workers_are_those_asked_for() -> None:
    done = demo("--size-mb", "1", "--positions", "25000", "--workers", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "= 1 MB shared" in done.stdout
    assert "3 tasks reset 25,000 positions; 3 workers" in done.stdout
    assert done.stdout.count("the bar counted 25,000 positions") == 2


@pytest.mark.parametrize("option", ["--size-mb", "--positions", "--workers"])
@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_a_number_that_is_not_positive_is_refused_by_name(option: str, value: str) -> None:
    done = demo(f"{option}={value}")
    assert done.returncode == 2
    assert f"argument {option}: must be a positive whole number, not '{value}'" in done.stderr


def test_a_wrong_result_is_said_and_is_an_exit_code_of_1() -> None:
    spoiled = """
import sys
from shoal import cli
from shoal.cli import ways
honest = ways.with_shoal
def spoil(job, workers, expected):
    expected.reset[0, 0] += 1
    return honest(job, workers, expected)
ways.with_shoal = spoil
sys.exit(cli.main(["demo", "--size-mb", "1", "--positions", "1000", "--workers", "2"]))
"""
    done = subprocess.run([sys.executable, "-c", spoiled], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "shoal: WRONG: the array after the reset DIFFERS" in done.stdout
    assert "multiprocessing: equal to the serial run" in done.stdout
