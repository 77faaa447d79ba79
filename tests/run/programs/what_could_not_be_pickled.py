"""What plain multiprocessing refuses: methods of objects with locks and files, queues as arguments, lambdas."""

import logging
import multiprocessing
import threading

import numpy as np


class Extractor:
    def __init__(self):
        self.features = np.arange(1_000_000, dtype=np.uint8)
        self.guard = threading.Lock()
        self.log = logging.getLogger("extractor")
        self.source = open(__file__)
        self.done = multiprocessing.Value("i", 0)

    def extract(self, i):
        with self.guard, self.done.get_lock():
            self.done.value += 1
        return int(self.features[i * 1000 : (i + 1) * 1000].sum()), self.source.readline()

    def run(self):
        with multiprocessing.Pool(2) as pool:
            got = pool.map(self.extract, range(64))
        assert [total for total, _ in got] == [int(self.features[i * 1000 : (i + 1) * 1000].sum()) for i in range(64)]
        assert any(line.startswith('"""What plain') for _, line in got)
        assert self.done.value == 64
        self.source.close()


def put(queue, lock, i):
    with lock:
        queue.put(i)


def main():
    Extractor().run()

    queue, lock = multiprocessing.Queue(), multiprocessing.Lock()
    with multiprocessing.Pool(2) as pool:
        for result in [pool.apply_async(put, (queue, lock, i)) for i in range(100)]:
            result.get(30)
    assert sorted(queue.get(timeout=30) for _ in range(100)) == list(range(100))

    factor = 3

    def scale(x):
        return x * factor

    with multiprocessing.Pool(2) as pool:
        assert pool.map(scale, range(10)) == [3 * i for i in range(10)]
        assert pool.map(lambda x: x + factor, range(10)) == [i + 3 for i in range(10)]


if __name__ == "__main__":
    main()
