"""Each of records, warnings and output can be switched off."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from typing import Any

import pytest

import shoal

LOGGER = "tests.switches"


def speak() -> None:
    print("printed")
    print("complained", file=sys.stderr)
    logging.getLogger(LOGGER).warning("logged")
    warnings.warn("warned", stacklevel=1)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What came of it: a cluster in this process logs things of its own."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Any:
    """What was heard of a pool that was made with these options: out, err, log, warnings."""

    def heard(make: Any = shoal.Pool, **options: Any) -> tuple[str, str, list[str], list[str]]:
        caplog.clear()
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            with make(1, **options) as pool:
                pool.submit(speak).result()
        out, err = capfd.readouterr()
        return out, err, logged(caplog), [str(warning.message) for warning in shown]

    return heard


ALL = ("printed\n", "complained\n", ["logged"], ["warned"])


@pytest.mark.parametrize("kind", [shoal.Pool, shoal.Executor])
def test_what_is_switched_off_is_silent_and_the_rest_is_heard(heard: Any, kind: Any) -> None:
    out, err, log, warned = ALL
    assert heard(kind) == ALL
    assert heard(kind, logs=False) == (out, err, [], warned)
    assert heard(kind, warnings=False) == (out, err, log, [])
    assert heard(kind, output=False) == ("", "", log, warned)


def test_a_worker_whose_output_is_switched_off_tells_by_its_death_what_it_said() -> None:
    def work() -> None:
        print("last words", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)

    with shoal.Pool(1, output=False) as pool, pytest.raises(shoal.WorkerDied) as death:
        pool.apply(work)
    assert death.value.stderr == "last words"


def test_an_error_stays_one_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", UserWarning)
        with shoal.Pool(1) as pool, pytest.raises(UserWarning, match="warned"):
            pool.apply(speak)


@pytest.mark.parametrize("option", ["logs", "warnings", "output"])
def test_a_switch_is_true_or_false(option: str) -> None:
    with pytest.raises(TypeError, match=f"{option} must be True or False, not 'no'"):
        shoal.Pool(1, **{option: "no"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{option} is for processes"):
        shoal.Pool(1, kind="thread", **{option: False})  # type: ignore[arg-type]


def test_what_threads_say_is_said_here(heard: Any) -> None:
    assert heard(kind="thread") == ALL
