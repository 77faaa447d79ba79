"""Who may have something drawn, and what becomes of those who may not, or talk nonsense."""

import contextlib
import gc
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import shoal
from shoal._engine import when_readable
from shoal.progress.door import door
from shoal.progress.line import pack
from tests.conftest import Run
from tests.pool.support import descriptors, eventually


class Bomb:
    """What must never be unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def knock(*data: bytes) -> socket.socket:
    visitor = socket.socket(socket.AF_UNIX)
    visitor.settimeout(100)
    visitor.connect(door().address.name)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # shown out in the midst of it
        for part in data:
            visitor.sendall(part)
    return visitor


def shut(visitor: socket.socket) -> bool:
    """Whether the door was shut in a visitor's face."""
    try:
        return visitor.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.fixture(autouse=True)
def bar() -> Iterator[Any]:
    """A bar that goes on, whatever visitors do."""
    with open(os.devnull, "w") as file, shoal.tqdm(total=10, file=file) as bar:
        yield bar
        before = bar.fp
        bar.update()
        assert bar.fp is before and eventually(lambda: bar.last_print_n == bar.n)


def test_who_does_not_know_the_token_is_not_let_in() -> None:
    with knock(os.urandom(16), pack((1, "write", Bomb()))) as visitor:
        assert shut(visitor)


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff\xff\x00\x00" + b"x" * 65535, pack((1,)), pack(("x",)), b"\x02\x00\x00\x00N."],
    ids=["no pickle", "no verb", "no number", "no tuple"],
)
def test_who_talks_nonsense_is_shown_out(nonsense: bytes) -> None:
    with knock(door().address.token, nonsense) as visitor:
        assert shut(visitor)


@pytest.mark.parametrize("question", [("dance",), ("write", 1, 2, 3), ("show", "std", (), {}), ("look",)])
def test_a_question_that_has_no_answer_is_answered_with_the_reason(question: tuple[Any, ...]) -> None:
    with knock(door().address.token, pack((7, *question))) as visitor:
        length = struct.unpack("<I", visitor.recv(4))[0]
        number, problem = pickle.loads(visitor.recv(length))
        assert number == 7 and isinstance(problem, str)


def test_half_a_question_keeps_nobody_waiting(pool: shoal.Pool, bar: Any) -> None:
    with knock(door().address.token, b"\x10"), knock(door().address.token[:5]), knock():
        pool.apply(bar.write, ("",), {"end": ""})
        pool.apply(bar.update)
        assert bar.n == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_not_let_in(run: Run) -> None:
    name, token = door().address.name, door().address.token
    program = run(f"""
        import os, socket
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.settimeout(100)
            visitor.connect({name!r})
            try:
                visitor.sendall({token!r})
                print(visitor.recv(100))
            except (BrokenPipeError, ConnectionResetError):
                print(b"")
    """)
    assert program.stdout == "b''\n", program.stderr


def test_bars_and_visitors_leave_no_descriptor_behind(pool: shoal.Pool) -> None:
    both = shoal.Barrier(2)

    def work(_: int) -> None:
        # Each worker has one in each turn: with its first it gets a line that it keeps.
        both.wait()
        for _ in shoal.tqdm(range(3), desc="part"):
            pass

    def turn() -> None:
        with open(os.devnull, "w") as file:
            for _ in range(20):
                with shoal.tqdm(total=3, file=file) as bar:
                    pool.apply(bar.update)
        pool.map(work, range(4), chunksize=1)
        gc.collect()

    turn()
    before = descriptors()
    for _ in range(3):
        turn()
    assert eventually(lambda: descriptors() <= before)


def test_many_bars_cost_no_descriptors_of_their_own() -> None:
    before = descriptors()
    bars = [shoal.tqdm(total=3, disable=True) for _ in range(2000)]
    handles = [pickle.dumps(bar) for bar in bars]
    assert len(handles) == 2000 and descriptors() < before + 20


def test_a_function_is_called_once_when_there_is_something_to_read() -> None:
    here, there = socket.socketpair()
    with here, there:
        called: list[str] = []
        when_readable(here.fileno(), lambda: called.append(threading.current_thread().name))
        assert not called
        there.send(b"x")
        assert eventually(lambda: called)
        there.send(b"y")
        gone = threading.Event()
        when_readable(here.fileno(), gone.set)
        assert gone.wait(100)
        assert len(called) == 1


def test_what_such_a_function_raises_is_told_and_stops_nothing(run: Run) -> None:
    program = run("""
        import os, sys, threading
        from shoal._engine import when_readable

        # They are called in any order.
        told, tell = threading.Event(), sys.unraisablehook
        sys.unraisablehook = lambda raised: (tell(raised), told.set())
        r, w = os.pipe()
        os.write(w, b"x")
        when_readable(r, lambda: 1 / 0)
        done = threading.Event()
        when_readable(r, done.set)
        print(done.wait(100), told.wait(100))
    """)
    assert program.stdout == "True True\n"
    assert "ZeroDivisionError" in program.stderr


def test_only_an_open_descriptor_can_be_read() -> None:
    with pytest.raises(ValueError, match=r"^fd must be an open descriptor, not -1"):
        when_readable(-1, print)
    closed = os.open(os.devnull, os.O_RDONLY)
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        when_readable(closed, print)


def test_a_program_ends_though_nobody_has_knocked(run: Run) -> None:
    program = run("""
        import shoal
        with shoal.Pool(1) as pool:
            pool.map(abs, [1])
        print("done")
    """)
    assert (program.stdout, program.stderr, program.returncode) == ("done\n", "", 0)


def test_threads_that_ask_for_the_door_at_once_get_the_same() -> None:
    program = """
import sys, threading
sys.setswitchinterval(1e-6)
from shoal.progress import door

for _ in range(100):
    barrier, doors = threading.Barrier(4), []

    def ask():
        barrier.wait()
        doors.append(door.door())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, doors))) == 1
    door.shut()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=150)
