"""The exception of a task: it arrives as itself with the remote traceback, or as a stand-in that says all it said."""

from __future__ import annotations

import linecache
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import RemoteError, RemoteTraceback
from shoal.serialize import dump_exception, dumps, load_exception
from tests.serialize.peer import Peer
from tests.stuck import stuck

Run = Callable[[str], str]


def raised(exc: BaseException) -> BaseException:
    """The exception with a traceback."""
    try:
        raise exc
    except BaseException as caught:
        return caught


def returned(exc: BaseException) -> BaseException:
    """What the client gets when a task raises this."""
    return load_exception(dump_exception(raised(exc)))


class NeedsTwo(Exception):
    """Pickles, but can't be unpickled: pickle calls the class with `args`, which is one text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class QuitsWhenRebuilt(Exception):
    def __init__(self, *args: object) -> None:
        if not args:
            raise SystemExit

    def __reduce__(self) -> Any:
        return QuitsWhenRebuilt, ()


class CountsAttempts(Exception):
    attempts = 0

    def __init__(self, *args: object) -> None:
        if not args:
            CountsAttempts.attempts += 1
            raise ValueError

    def __reduce__(self) -> Any:
        return CountsAttempts, ()


class BecomesText(Exception):
    def __reduce__(self) -> Any:
        return str, ("not an exception",)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Empty(Exception):
    def __bool__(self) -> bool:
        raise TypeError("neither true nor false")


class Sealed(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("nothing can be assigned")


@given(st.lists(st.integers() | st.text()))
def test_an_exception_arrives_as_itself_with_its_arguments(args: list[Any]) -> None:
    exc = returned(ValueError(*args))
    assert type(exc) is ValueError
    assert exc.args == tuple(args)


@pytest.mark.parametrize(
    "exc",
    [
        KeyError("k"),
        SystemExit(3),
        KeyboardInterrupt(),
        OSError(2, "gone", "f.txt"),
        UnicodeDecodeError("a", b"", 0, 1, "x"),
    ],
    ids=repr,
)
def test_built_in_exceptions_keep_type_and_text(exc: BaseException) -> None:
    back = returned(exc)
    assert type(back) is type(exc)
    assert str(back) == str(exc)


def test_the_cause_is_the_remote_traceback() -> None:
    cause = returned(ValueError("bad")).__cause__
    assert isinstance(cause, RemoteTraceback)
    assert str(cause).startswith('\n"""\nTraceback (most recent call last):\n')
    assert "in raised\n" in str(cause)
    assert str(cause).endswith('ValueError: bad\n"""')


def test_attributes_and_notes_are_kept() -> None:
    exc = ValueError("bad")
    exc.add_note("while reading page 3")
    exc.code = 7  # type: ignore[attr-defined]
    back: Any = returned(exc)
    assert back.__notes__ == ["while reading page 3"]
    assert back.code == 7
    assert "while reading page 3" in str(back.__cause__)


def test_one_whose_attributes_cannot_be_set_still_gets_its_cause() -> None:
    back = returned(Sealed(4))
    assert type(back) is Sealed
    assert isinstance(back.__cause__, RemoteTraceback)


def test_one_that_has_no_truth_value_arrives_too() -> None:
    assert type(returned(Empty())) is Empty


def test_causes_contexts_and_groups_show_in_the_text() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            raise ExceptionGroup("several", [TypeError("third"), OSError("fourth")]) from error

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    back: Any = load_exception(dump_exception(caught.value))
    assert [type(member) for member in back.exceptions] == [TypeError, OSError]
    for text in ("first", "second", "third", "fourth", "During handling of", "direct cause"):
        assert text in str(back.__cause__)


def test_frames_of_shoal_itself_are_left_out() -> None:
    with pytest.raises(Exception) as caught:
        dumps(stuck())
    text = str(load_exception(dump_exception(caught.value)).__cause__)
    assert "test_exceptions.py" in text
    assert "pickler.py" not in text
    assert "cannot pickle 'generator' object" in text


@pytest.mark.parametrize(
    ("exc", "name", "message"),
    [
        (NeedsTwo(7, "wrong"), "NeedsTwo", "7: wrong"),
        (ValueError("locked", stuck()), "ValueError", "('locked', <generator object stuck at"),
        (QuitsWhenRebuilt("x"), "QuitsWhenRebuilt", ""),
        (BecomesText("x"), "BecomesText", "x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_that_cannot_make_the_journey_is_replaced_by_a_stand_in(exc: Exception, name: str, message: str) -> None:
    back = returned(exc)
    assert isinstance(back, RemoteError)
    assert back.type_name.rpartition(".")[2] == name
    assert back.message.startswith(message)
    assert "in raised\n" in back.traceback
    assert isinstance(back.__cause__, RemoteTraceback)
    assert back.__cause__.tb == back.traceback


def test_one_that_could_not_be_rebuilt_in_the_worker_is_not_tried_in_the_client() -> None:
    record = dump_exception(raised(CountsAttempts("x")))
    assert CountsAttempts.attempts == 1
    assert isinstance(load_exception(record), RemoteError)
    assert CountsAttempts.attempts == 1


def test_the_name_in_a_stand_in_has_the_module_unless_it_is_builtins_or_main(run_script: Run) -> None:
    back = returned(NeedsTwo(1, "x"))
    assert isinstance(back, RemoteError)
    assert back.type_name == f"{__name__}.NeedsTwo"
    printed = run_script("""
        from shoal.serialize import dump_exception, load_exception
        class Failure(Exception): pass
        print(load_exception(dump_exception(Failure(i for i in ()))).type_name)
        print(load_exception(dump_exception(ValueError(i for i in ()))).type_name)
    """)
    assert printed == "Failure\nValueError\n"


def test_an_exception_without_a_text_still_arrives() -> None:
    back = returned(Unprintable())
    assert type(back) is Unprintable
    stand_in = returned(Unprintable(stuck()))
    assert isinstance(stand_in, RemoteError)
    assert stand_in.message == "<str() of it raised ValueError>"


def test_one_that_only_the_worker_can_rebuild_becomes_a_stand_in_here(peer: Peer) -> None:
    def fail() -> None:
        import sys
        import types

        module = types.ModuleType("only_there")
        sys.modules["only_there"] = module
        exec("class Failure(Exception): pass", module.__dict__)
        raise module.Failure("lost")

    with pytest.raises(RemoteError, match=r"^only_there\.Failure: lost$"):
        peer.call(fail)


def test_an_exception_from_another_process_can_be_caught_and_chained(peer: Peer) -> None:
    def fail(x: int) -> None:
        raise ZeroDivisionError(x)

    with pytest.raises(ZeroDivisionError) as caught:
        peer.call(fail, 3)
    assert caught.value.args == (3,)
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize("data", [b"", b"garbage", pickle.dumps(None), pickle.dumps((1, 2))])
def test_a_record_that_cannot_be_read_is_a_stand_in_and_no_error(data: bytes) -> None:
    back = load_exception(data)
    assert isinstance(back, RemoteError)
    assert "can't be read" in str(back)


def test_a_record_can_be_read_from_a_view() -> None:
    assert type(load_exception(memoryview(dump_exception(KeyError(1))))) is KeyError


def test_what_needs_a_way_of_its_own_has_it_inside_an_exception() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        _, arrived = load_exception(dump_exception(ValueError("here it is", writer))).args
        with arrived:
            arrived.send("hello")
        assert reader.recv() == "hello"


def test_what_tblib_registers_for_all_exceptions_is_not_used_and_what_the_user_registers_is(run_script: Run) -> None:
    """tblib comes with distributed. Its way rebuilds exceptions without what their classes keep beside attributes."""
    printed = run_script("""
        import copyreg
        import tblib.pickling_support
        from shoal import OutOfSharedMemory
        from shoal.serialize import dump_exception, load_exception

        class Mine(Exception):
            pass

        known = OutOfSharedMemory, Mine
        tblib.pickling_support.install()
        for exc in (OutOfSharedMemory("no room"), UnicodeDecodeError("a", b"", 0, 1, "x"), OSError(2, "gone"), Mine(1)):
            print(repr(load_exception(dump_exception(exc))))
        copyreg.pickle(Mine, lambda exc: (Mine, ("registered",)))
        print(repr(load_exception(dump_exception(Mine(1)))))
    """)
    assert printed.splitlines() == [
        "OutOfSharedMemory('no room')",
        "UnicodeDecodeError('a', b'', 0, 1, 'x')",
        "FileNotFoundError(2, 'gone')",
        "Mine(1)",
        "Mine('registered')",
    ]


def test_lines_of_source_that_only_the_client_has_are_added_there(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "def inner():\n    raise KeyError\n\ndef outer():\n    try:\n        inner()\n    finally:\n        del x\n"
    )
    namespace: dict[str, Any] = {}
    exec(compile(source, "/nowhere/cell.py", "exec"), namespace)
    try:
        namespace["outer"]()
    except NameError as error:
        sent = dump_exception(error)
    assert "raise KeyError" not in str(load_exception(sent).__cause__)
    monkeypatch.setitem(linecache.cache, "/nowhere/cell.py", (len(source), None, source.splitlines(True), ""))
    text = str(load_exception(sent).__cause__)
    for number, function, line in ((6, "outer", "inner()"), (2, "inner", "raise KeyError"), (8, "outer", "del x")):
        assert text.count(f'  File "/nowhere/cell.py", line {number}, in {function}\n    {line}\n') == 1, text
