"""A process that was only given handles: uses what they name until nobody listens any more.

python -m torture.guest    (handles come pickled on its standard input; it tells on its standard output)
"""

from __future__ import annotations

import pickle
import sys

import numpy as np


def main() -> int:
    """Serves; returns the exit status."""
    lock, permit, counter, queue, given = pickle.load(sys.stdin.buffer)
    n = 0
    while True:
        n += 1
        with lock, permit:
            counter.add()
            assert (given == 7.0).all()
            queue.put((n, np.full(5000 if n % 2 else 50, n)))
        try:
            print(n, flush=True)
        except BrokenPipeError:
            # So that the interpreter does not flush it again.
            sys.stdout = None  # type: ignore[assignment]
            return 0


if __name__ == "__main__":
    sys.exit(main())
