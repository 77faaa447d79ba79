"""A signal handler's exception ends a wait, also if what was waited for has come by then."""

import textwrap

import pytest

from tests.sync.support import interrupted

# An RLock that another thread has until `act`.
_ELSEWHERE = """
it, taken, enough = shoal.RLock(), threading.Event(), threading.Event()
def hold():
    with it:
        taken.set()
        enough.wait()
holder = threading.Thread(target=hold)
holder.start()
taken.wait()
"""

# What is waited for, what the handler does to it, the wait, and what shows that it was not taken.
_WAITS = {
    "lock": ("it = shoal.Lock()\nit.acquire()", "it.release()", "it.acquire()", "not it.locked()"),
    "rlock": (_ELSEWHERE, "enough.set(), holder.join()", "it.acquire()", "not it.locked()"),
    "semaphore": ("it = shoal.Semaphore(0)", "it.release()", "it.acquire()", "it.get_value() == 1"),
    "event": ("it = shoal.Event()", "it.set()", "it.wait()", "it.is_set()"),
    "barrier": ("it = shoal.Barrier(2)", "it.abort()", "it.wait()", "it.broken"),
}


@pytest.mark.parametrize("kind", _WAITS)
def test_the_exception_is_raised_and_nothing_is_taken(kind: str) -> None:
    made, act, wait, after = _WAITS[kind]
    program = f"""
def handler(*_):
    {act}
    raise KeyboardInterrupt
{textwrap.dedent(made)}
signal.signal(signal.SIGINT, handler)
try:
    print("went on", {wait})
finally:
    assert {after}
"""
    assert interrupted(program) == "interrupted"
