"""Resets features of one large array at many positions, as people write it.

Shared memory by name, a manager's queue and lock, a bar that a daemon thread moves, a wait until the queue is empty.

    python reset_features.py [features] [positions]
"""

import multiprocessing
import sys
import time
from multiprocessing import Pool, shared_memory
from threading import Thread

import numpy as np
import tqdm

POSITIONS_A_TASK = 1000


def reset(positions, name, queue, lock):
    segment = shared_memory.SharedMemory(name=name)
    features = np.frombuffer(segment.buf, dtype=np.uint8)
    with lock:
        features[positions] = 0
    queue.put(len(positions))
    del features
    segment.close()


def follow(queue, bar):
    while True:
        bar.update(queue.get())


def main(features=1_000_000, positions=200_000):
    random = np.random.default_rng(0)
    expected = np.ones(features, dtype=np.uint8)
    where = random.integers(0, features, positions)

    segment = shared_memory.SharedMemory(create=True, size=features)
    shared = np.frombuffer(segment.buf, dtype=np.uint8, count=features)
    shared[:] = expected

    manager = multiprocessing.Manager()
    queue, lock = manager.Queue(), manager.Lock()
    bar = tqdm.tqdm(total=positions)
    Thread(target=follow, args=(queue, bar), daemon=True).start()
    results = []
    with Pool(multiprocessing.cpu_count()) as pool:
        for first in range(0, positions, POSITIONS_A_TASK):
            part = where[first : first + POSITIONS_A_TASK]
            results.append(pool.apply_async(reset, args=(part, segment.name, queue, lock)))
        [result.wait() for result in results]
    while not queue.empty():
        pass
    # The thread may have the last of it in hand.
    while bar.n < positions:
        time.sleep(0.001)
    bar.close()

    expected[where] = 0
    assert all(result.successful() for result in results)
    assert (shared == expected).all()
    assert bar.n == positions, bar.n
    del shared
    segment.close()
    segment.unlink()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
