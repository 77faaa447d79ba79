"""How soon a pool gives its first result, in a fresh interpreter and again in the same process."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .harness import WORKERS, Figure, Measurement, Scale

# A program as a user has it: a file of its own, which imports the tool and nothing else. The task is a builtin, so that
# no tool has to find a module. It prints when the first result was there, then how long the next pools took.
PROGRAM = """\
import time
{imports}

def first_result():
    {start}
    {call}
    return pool

def stop(pool):
    {stop}

if __name__ == "__main__":
    pool = first_result()
    print(time.monotonic_ns())
    stop(pool)
    for _ in range({pools}):
        started = time.monotonic_ns()
        pool = first_result()
        print(time.monotonic_ns() - started)
        stop(pool)
"""

_POOL = {"call": "assert pool.apply(abs, (-1,)) == 1", "stop": "pool.close(); pool.join()"}
PARTS = {
    "shoal": {"imports": "import shoal", "start": f"pool = shoal.Pool({WORKERS})", **_POOL},
    **{
        f"multiprocessing {method}": {
            "imports": "import multiprocessing",
            "start": f"pool = multiprocessing.get_context({method!r}).Pool({WORKERS})",
            **_POOL,
        }
        for method in ("fork", "forkserver", "spawn")
    },
    "joblib loky": {
        "imports": "from joblib.externals.loky import get_reusable_executor",
        "start": f"pool = get_reusable_executor(max_workers={WORKERS})",
        "call": "assert pool.submit(abs, -1).result() == 1",
        "stop": "pool.shutdown(wait=True)",
    },
}


def _sample(contender: str, scale: Scale) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PROGRAM.format(pools=scale.pick(5, 2), **PARTS[contender]))
        started = time.monotonic_ns()
        done = subprocess.run([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, check=True)
    first, *following = map(int, done.stdout.split())
    return (first - started) / 1e6, sorted(following)[len(following) // 2] / 1e6


MEASUREMENTS = (
    Measurement(
        (
            Figure("first-result", "fresh interpreter to the first result", "ms", False, 60),
            Figure("next-pool", "the next pool in the same process", "ms", False, 5),
        ),
        _sample,
        rounds=9,
        contenders=tuple(PARTS),
    ),
)
