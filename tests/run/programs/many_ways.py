"""A program without a guard that uses what there is: contexts, initializers, executors, callbacks, threads."""

import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing.pool import ThreadPool

settings = {}


def prepare(value):
    settings["value"] = value


def work(x):
    return x + settings["value"]


with mp.get_context("spawn").Pool(2, prepare, (10,), maxtasksperchild=5) as pool:
    assert pool.map(work, range(20)) == list(range(10, 30))
    assert sorted(pool.imap_unordered(work, range(5), chunksize=2)) == list(range(10, 15))
    assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
    seen = []
    pool.apply_async(work, (1,), callback=seen.append).wait()
    pool.close()
    pool.join()
    assert seen == [11]

with ProcessPoolExecutor(2, mp_context=mp.get_context("fork"), initializer=prepare, initargs=(5,)) as executor:
    futures = [executor.submit(work, i) for i in range(10)]
    wait(futures)
    assert [future.result() for future in futures] == list(range(5, 15))
    assert list(executor.map(work, range(3))) == [5, 6, 7]

with ThreadPool(2) as threads:
    prepare(1)
    assert threads.map(work, range(3)) == [1, 2, 3]

pool = mp.Pool(1)
try:
    pool.apply_async(int, ("x",)).get(30)
except ValueError as error:
    assert "invalid literal" in str(error)
pool.terminate()
