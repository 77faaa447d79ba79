"""CPython's own tests of multiprocessing, run against what shoal puts in place of the originals.

The interpreter ships them as `test._test_multiprocessing`: mixins that take what they test from their own attributes. A
test module here names some of them, and what their attributes are to be instead:

    install(globals(), ["_TestLock"], replaced={"Lock": shoal.Lock, "RLock": shoal.RLock})

which defines `TestLockFork`, `TestLockForkserver` and `TestLockSpawn`: the same tests, with processes of each start
method. Processes that are started anew import the test module to find them, so it defines them whoever imports it.

Where an interpreter ships no tests, a module is skipped.
"""

import contextlib
import multiprocessing
import unittest
from collections.abc import Iterable, Mapping
from typing import Any
from unittest import mock

import pytest

from tests.pool.support import eventually

suite: Any = pytest.importorskip("test._test_multiprocessing", exc_type=ImportError)

# Seconds for others to let go of something, where the originals sleep for a tenth of one.
PATIENCE = 1.0

METHODS = ("fork", "forkserver", "spawn")


def install(
    module: dict[str, Any],
    names: Iterable[str],
    *,
    replaced: Mapping[str, Any] | None = None,
    patched: Mapping[str, Any] | None = None,
    changed: Mapping[str, type] | None = None,
    deviations: Mapping[str, str] | None = None,
    methods: Iterable[str] = METHODS,
    slow: Iterable[str] = (),
) -> None:
    """Defines tests of CPython in a module.

    Args:
        module: `globals()` of the module.
        names: the classes, as `test._test_multiprocessing` calls them.
        replaced: what the tests take from `self`, by name.
        patched: what they take from their module's globals, by name: `"Value"`, or `"multiprocessing.SimpleQueue"`. In
            place while a test runs, in the process that runs it.
        changed: by class, one with methods that go before CPython's, for tests that look at private parts.
        deviations: by test, as `"_TestX.test_y"`, why shoal is otherwise there. The test must fail.
        methods: the start methods.
        slow: the start methods with which all this takes long.
    """
    deviations = dict(deviations or {})
    for name in names:
        base = getattr(suite, name)
        for method in methods:
            case = _case(base, method, replaced or {}, patched or {}, (changed or {}).get(name))
            for test, reason in deviations.items():
                if test.startswith(f"{name}."):
                    attribute = test.removeprefix(f"{name}.")
                    setattr(case, attribute, _deviating(getattr(case, attribute), reason))
            if method in slow:
                case = pytest.mark.slow(case)
            case.__module__ = module["__name__"]
            case.__name__ = case.__qualname__ = f"{name.removeprefix('_')}{method.capitalize()}"
            module[case.__name__] = case


def _case(
    base: type, method: str, replaced: Mapping[str, Any], patched: Mapping[str, Any], changes: type | None
) -> Any:
    mixins = () if issubclass(base, unittest.TestCase) else (suite.ProcessesMixin, unittest.TestCase)

    # Starting a process takes up to a second on a busy machine, and some tests start dozens.
    @pytest.mark.timeout(300)
    # From 3.12 on CPython warns of forks in processes with threads, which these tests have by design.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    class Case(*((changes,) if changes else ()), base, *mixins):  # type: ignore[misc]
        def run(self, result: Any = None) -> Any:
            with contextlib.ExitStack() as restored:
                before = multiprocessing.get_start_method(allow_none=True)
                restored.callback(multiprocessing.set_start_method, before, force=True)
                multiprocessing.set_start_method(method, force=True)
                for target, new in patched.items():
                    restored.enter_context(mock.patch(f"{suite.__name__}.{target}", new))
                return super().run(result)

        def assertReturnsIfImplemented(self, value: Any, func: Any, *args: Any) -> None:
            """The original gives others a tenth of a second to come so far, which is little on a busy machine."""
            eventually(lambda: func(*args) == value)
            super().assertReturnsIfImplemented(value, func, *args)

    for attribute, value in replaced.items():
        # As they are: a function among them is not to become a method.
        setattr(Case, attribute, staticmethod(value))
    return Case


def _deviating(test: Any, reason: str) -> Any:
    def deviating(self: Any) -> None:
        test(self)

    return pytest.mark.xfail(reason=reason, strict=True)(deviating)
