"""Threads, processes, or shared memory? Seven kinds of jobs, done in four ways, each timed.

    python examples/which_when.py [--size 0.1] [--rounds 7] [--workers N]

Prints a table of milliseconds, the best of some rounds. The ways take turns, so that what else the machine does meets
all of them. What the table means for a job of yours: docs/which-when.md.
"""

import argparse
import functools
import multiprocessing
import multiprocessing.pool
import time

import numpy as np

import shoal

# ---- what a task does ------------------------------------------------------------------------------------------------


def python_code(n):
    """Only the interpreter works."""
    return sum(i * i % 7 for i in range(n))


def numpy_code(n):
    """Nearly all the time is spent in numpy, which lets go of the interpreter."""
    return float(np.sort(np.random.default_rng(n).random(n))[0])


def read(table, first):
    """Every task needs the whole array, and looks at a part of it."""
    return float(np.sqrt(table[first::16]).sum())


def make(rows):
    """The result is a large array."""
    return np.ones((rows, 1000))


def write(table, part):
    """Changes a part of an array that all share."""
    np.sqrt(table[part], out=table[part])


def changed(part):
    """The same where nothing is shared: the part comes, and goes back."""
    return np.sqrt(part)


def tiny(x):
    """Hardly anything at all."""
    return x + 1


# ---- the jobs, on whatever has a `map` -------------------------------------------------------------------------------


def jobs(size):
    """Their names, and functions of a pool that do them. `size` is 1, or less for less work."""
    table = np.ones((int(6_400 * size), 1000))  # 51 MB
    shared = shoal.array(table)
    parts = [slice(start, start + len(table) // 16) for start in range(0, len(table), len(table) // 16)]

    def shares(pool):
        return not isinstance(pool, multiprocessing.pool.Pool) or isinstance(pool, multiprocessing.pool.ThreadPool)

    def read_one(pool):
        pool.map(functools.partial(read, shared if shares(pool) else table), range(16), chunksize=1)

    def write_one(pool):
        if shares(pool):
            pool.map(functools.partial(write, shared), parts, chunksize=1)
        else:
            for part, new in zip(parts, pool.imap(changed, [table[part] for part in parts]), strict=True):
                table[part] = new

    return {
        "Python code": lambda pool: pool.map(python_code, [int(50_000 * size)] * 32),
        "numpy code": lambda pool: pool.map(numpy_code, [int(100_000 * size)] * 32),
        "waiting": lambda pool: pool.map(time.sleep, [0.01 * size] * 32, chunksize=1),
        "one array, read by all": read_one,
        "large results": lambda pool: pool.map(make, [int(1000 * size)] * 8, chunksize=1),
        "one array, written by all": write_one,
        "tiny tasks": lambda pool: pool.map(tiny, range(int(100_000 * size))),
    }


class Loop:
    """No pool at all."""

    def map(self, function, items, chunksize=None):
        return [function(item) for item in items]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", type=float, default=1.0, help="how much work: 0.1 is a tenth. Default: 1")
    options.add_argument("--rounds", type=int, default=7, help="default: 7")
    options.add_argument("--workers", type=int, default=shoal.cpu_count(), help="default: one for each CPU")
    chosen = options.parse_args()
    with (
        multiprocessing.Pool(chosen.workers) as processes,
        multiprocessing.pool.ThreadPool(chosen.workers) as threads,
        shoal.Pool(chosen.workers) as pool,
    ):
        ways = {"loop": Loop(), "threads": threads, "multiprocessing": processes, "shoal": pool}
        print(f"{chosen.workers} workers; milliseconds")
        print(f"{'':26}" + "".join(f"{name:>16}" for name in ways))
        for name, job in jobs(chosen.size).items():
            took = dict.fromkeys(ways, float("inf"))
            for _ in range(chosen.rounds):
                for way, of in ways.items():
                    started = time.perf_counter()
                    job(of)
                    took[way] = min(took[way], time.perf_counter() - started)
            print(f"{name:26}" + "".join(f"{seconds * 1000:16.1f}" for seconds in took.values()), flush=True)


if __name__ == "__main__":
    main()
