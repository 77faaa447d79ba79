"""Tasks that last as long as a test wants, and one that fails."""

import time
from concurrent.futures import Future
from pathlib import Path
from typing import NoReturn

import shoal
from tests.pool.support import eventually


class Gate:
    """Tasks wait at it until it is open: a file, which any process sees."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wait(self, value: object = None) -> object:
        while not self.path.exists():
            time.sleep(0.002)
        return value

    def open(self) -> None:
        self.path.touch()


def fail(message: str) -> NoReturn:
    raise LookupError(message)


def occupy(pool: shoal.Pool, gate: Gate) -> list[Future[object]]:
    """All workers are at tasks that wait at the gate."""
    held = [pool.submit(gate.wait, n) for n in range(len(pool.workers))]
    assert eventually(lambda: all(future.running() for future in held))
    return held
