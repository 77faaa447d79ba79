"""Programs that are written for executors and for joblib: futures, `Parallel`, a grid search of scikit-learn."""

import concurrent.futures
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from shoal.bench.harness import WORKERS, Figure, Measurement, Scale
from shoal.bench.peers import SHOAL
from shoal.bench.tasks import noop
from shoal.bench.throughput import rate

# A whole program, as a user has it. The estimator is small and the grid large, or the other way round.
SEARCH = """\
import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

{register}
X, y = load_digits(return_X_y=True)
with joblib.parallel_config(backend={backend!r}):
    GridSearchCV(SVC(), {grid!r}, cv={folds}, n_jobs={jobs}).fit(X[:{rows}], y[:{rows}])
"""
CONFIGURATIONS = {
    "small": {"rows": 300, "folds": 3, "grid": {"C": [1, 10]}},
    "usual": {"rows": 1797, "folds": 5, "grid": {"C": [0.1, 1, 10], "gamma": [1e-3, 1e-4]}},
    "many": {"rows": 300, "folds": 5, "grid": {"C": [2.0**n for n in range(-10, 10)], "gamma": [1e-3, 1e-4, 1e-5]}},
}


def _executor(contender: str) -> concurrent.futures.Executor:
    if contender == SHOAL:
        import shoal

        return shoal.Executor(WORKERS)
    return concurrent.futures.ProcessPoolExecutor(WORKERS)


def _futures(contender: str, scale: Scale) -> tuple[float]:
    with _executor(contender) as executor:

        def run(count: int) -> None:
            for future in [executor.submit(noop, item) for item in range(count)]:
                future.result()

        return (rate(run, scale.pick(50_000, 2_000)) / 1e3,)


def _backend(contender: str) -> str:
    if contender != SHOAL:
        return "loky"
    import shoal

    shoal.joblib.register()
    return "shoal"


def _parallel(contender: str, scale: Scale, count: int, **options: Any) -> float:
    import joblib

    backend, call = _backend(contender), joblib.delayed(noop)

    def run(part: int) -> None:
        joblib.Parallel(n_jobs=WORKERS, backend=backend, **options)(call(item) for item in range(part))

    return rate(run, scale.pick(count, count // 20)) / 1e3


def _batches(contender: str, scale: Scale) -> tuple[float]:
    return (_parallel(contender, scale, 200_000),)


def _single(contender: str, scale: Scale) -> tuple[float]:
    return (_parallel(contender, scale, 20_000, batch_size=1),)


def _search(configuration: str) -> Callable[[str, Scale], tuple[float]]:
    def sample(contender: str, _scale: Scale) -> tuple[float]:
        register = "import shoal; shoal.joblib.register()" if contender == SHOAL else ""
        backend = "shoal" if contender == SHOAL else "loky"
        source = SEARCH.format(register=register, backend=backend, jobs=WORKERS, **CONFIGURATIONS[configuration])
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", source], check=True)
        return (time.perf_counter() - started,)

    return sample


BOTH = (SHOAL, "joblib")

MEASUREMENTS = (
    Measurement(
        (Figure("futures", "futures, submitted one by one", "k/s", True),), _futures, contenders=(SHOAL, "executor")
    ),
    Measurement((Figure("joblib", "joblib no-ops, its own batches", "k/s", True),), _batches, contenders=BOTH),
    Measurement((Figure("joblib-1", "joblib no-ops, batches of 1", "k/s", True),), _single, contenders=BOTH),
    *(
        Measurement(
            (Figure(f"search-{name}", f"grid search on digits, whole program, {name}", "s", False),),
            _search(name),
            contenders=BOTH,
        )
        for name in CONFIGURATIONS
    ),
)
