"""CPython's tests of locks, semaphores, conditions, events and barriers, of values and arrays, pass with shoal's."""

import os
import signal
import threading
from typing import Any

import shoal
from shoal.values import copy
from tests.cpython.harness import install
from tests.pool.support import eventually

PRIMITIVES = {
    name: getattr(shoal, name)
    for name in (
        *("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"),
        *("Value", "Array", "RawValue", "RawArray"),
    )
}


class Waiting:
    """The original looks at the semaphores that a condition of multiprocessing consists of."""

    def check_invariant(self: Any, cond: Any) -> None:
        self.assertEqual(cond._waiting, 0)

    @classmethod
    def _test_wait_result(cls, cond: Any, pid: int) -> None:
        """The original interrupts the other after a second, in which that may not have come to wait again."""
        with cond:
            cond.notify()
        assert eventually(lambda: cond._waiting == 1)
        os.kill(pid, signal.SIGINT)


class Late:
    """In the originals one comes half a second after the others' time is up, if these have come to wait by then."""

    @classmethod
    def _test_timeout_f(cls: Any, barrier: Any, results: Any) -> None:
        if barrier.wait() == cls.N // 2:
            assert eventually(lambda: barrier.broken)
        try:
            barrier.wait(0.5)
        except threading.BrokenBarrierError:
            results.append(True)

    @classmethod
    def _test_default_timeout_f(cls: Any, barrier: Any, results: Any) -> None:
        if barrier.wait(cls.defaultTimeout) == cls.N // 2:
            assert eventually(lambda: barrier.broken)
        try:
            barrier.wait()
        except threading.BrokenBarrierError:
            results.append(True)


install(
    globals(),
    ["_TestLock", "_TestSemaphore", "_TestEvent", "_TestValue", "_TestArray", "_TestSharedCTypes"],
    replaced=PRIMITIVES,
    patched={"Value": shoal.Value, "copy": copy},
)
install(
    globals(),
    ["_TestCondition", "_TestBarrier"],
    replaced=PRIMITIVES,
    changed={"_TestCondition": Waiting, "_TestBarrier": Late},
    slow=["forkserver", "spawn"],
)
