"""joblib's own tests of `Parallel`, which its wheel ships, pass with the backend "shoal" in loky's place.

Their source is run with one name replaced by the other: backends are named in parameters, in scripts for subprocesses
and in the tests themselves.
"""

import gc
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import joblib.parallel
import pytest

import shoal
from shoal.integrations.joblib import ShoalBackend

NAME = "joblib.test.test_parallel"

# What is about loky itself, or is otherwise on purpose (docs/deviations.md).
LEFT_OUT = {
    "test_auto_memmap_on_arrays_from_generator": "there are no files for arrays",
    "test_memmapping_leaks": "there are no files for arrays",
    "test_loky_reuse_workers": "looks at loky's executor; shoal's own test looks at workers",
    "test_nested_parallel_warnings": "expects warnings of what loky can't do: shoal nests in threads and processes",
    "test_parallel_pickling": "the message names the way to what can't be pickled, and not joblib's batch",
    "test_error_capture": "expects other workers after an error: shoal replaces only those that were at a task",
    "test_nested_exception_dispatch": "expects loky's wrong answer",
    "test_parallel_with_interactively_defined_bound_method_loky": "looks for loky's log",
    "test_multiple_generator_call_separated_gc": "expects that to forget one generator breaks another",
}


def _load() -> dict[str, Any]:
    """The tests."""
    spec = importlib.util.find_spec(NAME)
    assert spec is not None and spec.origin is not None
    with open(spec.origin) as file:
        source = file.read()
    for old, new in (
        ('["multiprocessing", "loky"]', '["shoal"]'),
        ('"loky"', '"shoal"'),
        ("    LokyBackend,\n", ""),
        ("joblib._parallel_backends.LokyBackend", "LokyBackend"),
        ("LokyBackend", "ShoalBackend"),
        (
            "\nfrom joblib import Parallel, delayed",
            "\nimport shoal; shoal.joblib.register()\nfrom joblib import Parallel, delayed",
        ),
        # They are content with less than a task takes, or wait for something: a busy machine may take longer.
        ("time.time() - t_start < 2, (", "time.time() - t_start < 4, ("),
        ("timeout=10", "timeout=100"),
    ):
        assert old in source, f"joblib's tests are not as they were: {old}"
        source = source.replace(old, new)
    module = importlib.util.module_from_spec(spec)
    module.ShoalBackend = ShoalBackend  # type: ignore[attr-defined]
    # Workers find the original under this name, with the same functions in it.
    sys.modules[NAME] = module
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(joblib.parallel, "DEFAULT_BACKEND", "shoal")
        for name in ("loky", "multiprocessing"):
            patched.delitem(joblib.parallel.BACKENDS, name)
        exec(compile(source, spec.origin, "exec"), vars(module))
        # In workers, which import the original, it is loky: loops inside of loops are not to name it.
        patched.delitem(joblib.parallel.BACKENDS, "back_compat_backend")
        return {
            name: _with_ids(test)
            for name, test in vars(module).items()
            if name.startswith("test_") and name not in LEFT_OUT
        }


def _with_ids(test: Any) -> Any:
    """The test with ids that are not alike, as this project's configuration wants them."""
    marks = getattr(test, "pytestmark", [])
    for index, mark in enumerate(marks):
        if mark.name == "parametrize":
            names, values = mark.args
            values = list(values)
            ids = [f"{number}-{value!r}"[:40] for number, value in enumerate(values)]
            marks[index] = pytest.mark.parametrize(names, values, ids=ids).mark
    return test


shoal.joblib.register()
globals().update(_load())

# Some start dozens of workers.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200), pytest.mark.filterwarnings("default")]


# They want no warning at all, whoever it is of.
COUNT_WARNINGS = ("test_background_thread_parallelism", "test_main_thread_renamed_no_warning")


@pytest.fixture(autouse=True)
def default(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """shoal is the backend of whoever names none, and warnings of what others have left do not come in between."""
    if getattr(request.node, "originalname", None) in COUNT_WARNINGS:
        gc.collect()
    monkeypatch.setattr(joblib.parallel, "DEFAULT_BACKEND", "shoal")
    yield
