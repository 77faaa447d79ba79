"""CPython's tests of locks, semaphores, conditions, events and barriers, of values and arrays, pass with shoal's."""

from typing import Any

import shoal
from shoal.values import copy
from tests.cpython.harness import install

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
    changed={"_TestCondition": Waiting},
    slow=["forkserver", "spawn"],
)
