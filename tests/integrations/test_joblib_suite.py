"""joblib's own tests of `Parallel`, which its wheel ships, pass with the backend "shoal" in loky's place.

Their source is run with one name replaced by the other: backends are named in parameters, in scripts for subprocesses
and in the tests themselves.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import joblib.parallel
import pytest

import shoal
from shoal.integrations.joblib import ShoalBackend

NAME = "joblib.test.test_parallel"

# What is about loky itself, or otherwise on purpose. `None`: is no concern of a backend for processes.
LEFT_OUT = {
    "test_auto_memmap_on_arrays_from_generator": "there are no files for arrays",
    "test_memmapping_leaks": "there are no files for arrays",
    "test_loky_reuse_workers": "looks at loky's executor; shoal's own test looks at workers",
    "test_backend_hinting_and_constraints": "names the class of the default process backend, which stays loky",
}


def _load() -> ModuleType:
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
        ("\nfrom joblib import Parallel, delayed", "\nimport shoal; shoal.joblib.register()\nfrom joblib import Parallel, delayed"),
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
    return module


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
globals().update(
    {
        name: _with_ids(test)
        for name, test in vars(_load()).items()
        if name.startswith("test_") and name not in LEFT_OUT
    }
)

# Some start dozens of workers.
pytestmark = [pytest.mark.timeout(200), pytest.mark.filterwarnings("default")]


@pytest.fixture(autouse=True)
def default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """shoal is the backend of whoever names none."""
    monkeypatch.setattr(joblib.parallel, "DEFAULT_BACKEND", "shoal")
    yield
