"""Named segments: attaching costs nothing, nobody destroys another's, and nothing is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import shoal
from shoal.multiprocessing import shared_memory
from shoal.multiprocessing.shared_memory import ShareableList, SharedMemory


@pytest.fixture
def segment() -> Iterator[SharedMemory]:
    segment = SharedMemory(create=True, size=100_000)
    yield segment
    segment.close()
    if is_there(segment.name):
        segment.unlink()


def is_there(name: str) -> bool:
    return os.path.exists(f"/dev/shm/{name}")


def mappings(name: str, pid: int | str = "self") -> int:
    with open(f"/proc/{pid}/maps") as maps:
        return sum(f"/dev/shm/{name}" in line for line in maps)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def start(source: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


CREATES = """
    import sys
    from shoal.multiprocessing.shared_memory import SharedMemory
    segment = SharedMemory(create=True, size=5000)
    print(segment.name, flush=True)
    sys.stdin.read()
"""


def test_what_one_writes_another_reads(segment: SharedMemory, pool: shoal.Pool) -> None:
    def work(name: str) -> bytes:
        other = SharedMemory(name)
        other.buf[5:10] = b"there"
        return bytes(other.buf[:5])

    segment.buf[:5] = b"hello"
    assert pool.apply(work, (segment.name,)) == b"hello"
    assert bytes(segment.buf[5:10]) == b"there"


def test_a_segment_is_mapped_once_however_often_it_is_attached_to(segment: SharedMemory) -> None:
    others = [SharedMemory(segment.name) for _ in range(10)]
    assert mappings(segment.name) == 1
    for other in others:
        other.close()
    SharedMemory(segment.name).close()
    assert mappings(segment.name) == 1


def test_attaching_again_costs_little_beside_attaching_for_the_first_time() -> None:
    segment = SharedMemory(create=True, size=64 << 20)
    try:
        program = start(
            """
            import sys, time
            from shoal.multiprocessing.shared_memory import SharedMemory
            def attach():
                began = time.perf_counter()
                segment = SharedMemory(sys.argv[1])
                total = sum(segment.buf[::4096])
                segment.close()
                return time.perf_counter() - began
            first = attach()
            print(min(attach() for _ in range(5)) < first)
            """,
            segment.name,
        )
        out, err = program.communicate(timeout=100)
        assert (out.strip(), err) == ("True", "")
    finally:
        segment.close()
        segment.unlink()


def test_who_attaches_and_ends_takes_nothing_along(segment: SharedMemory) -> None:
    program = start(
        "import sys; from shoal.multiprocessing.shared_memory import SharedMemory as S; S(sys.argv[1])", segment.name
    )
    assert program.communicate(timeout=100) == ("", "")
    assert is_there(segment.name)


def test_plain_multiprocessing_attaches_to_one_of_these(segment: SharedMemory) -> None:
    segment.buf[:5] = b"hello"
    program = start(
        """
        import sys
        from multiprocessing import resource_tracker, shared_memory
        segment = shared_memory.SharedMemory(sys.argv[1])
        resource_tracker.unregister("/" + sys.argv[1], "shared_memory")
        print(bytes(segment.buf[:5]).decode())
        """,
        segment.name,
    )
    assert program.communicate(timeout=100) == ("hello\n", "")


def test_one_of_plain_multiprocessing_can_be_attached_to(segment: SharedMemory) -> None:
    program = start(CREATES.replace("shoal.", ""))
    assert program.stdout is not None
    name = program.stdout.readline().strip()
    assert SharedMemory(name).size == 5000
    assert is_there(name)
    program.communicate(timeout=100)


@pytest.mark.parametrize("ending", ["its end", "an exception", "SIGTERM", "SIGKILL"])
def test_a_segment_that_was_not_unlinked_goes_with_the_program_without_a_word(ending: str) -> None:
    program = start(CREATES + ("    raise SystemExit(3)" if ending == "an exception" else ""))
    assert program.stdout is not None and program.stderr is not None
    name = program.stdout.readline().strip()
    assert is_there(name)
    if ending.startswith("SIG"):
        program.send_signal(signal.Signals[ending])
    _, err = program.communicate(timeout=100)
    until(lambda: not is_there(name))
    assert err == ""


def test_an_untracked_segment_stays() -> None:
    program = start(CREATES.replace("size=5000", "size=5000, track=False"))
    name = program.communicate(timeout=100)[0].strip()
    assert is_there(name)
    SharedMemory(name).unlink()


def test_a_segment_that_a_worker_made_stays_when_the_worker_has_ended_and_goes_with_the_program() -> None:
    program = start(
        """
        import shoal
        from shoal.multiprocessing.shared_memory import SharedMemory
        def work(_):
            segment = SharedMemory(create=True, size=1000)
            segment.buf[:5] = b"hello"
            return segment.name
        with shoal.Pool(1) as pool:
            name = pool.map(work, [0])[0]
        pool.join()
        print(name, bytes(SharedMemory(name).buf[:5]).decode())
        """
    )
    out, err = program.communicate(timeout=100)
    name, text = out.split()
    assert (text, err) == ("hello", "")
    until(lambda: not is_there(name))


def test_a_name_that_somebody_else_has_taken_since_is_left_alone() -> None:
    program = start(CREATES)
    assert program.stdout is not None
    name = program.stdout.readline().strip()
    SharedMemory(name).unlink()
    mine = SharedMemory(name, create=True, size=10)
    program.communicate(timeout=100)
    assert is_there(name)
    mine.close()
    mine.unlink()


def test_memory_that_was_unlinked_is_given_back_by_workers_that_had_it_mapped(
    segment: SharedMemory, pool: shoal.Pool
) -> None:
    def work(name: str) -> int:
        SharedMemory(name).close()
        assert mappings(name) == 1
        return os.getpid()

    worker = pool.apply(work, (segment.name,))
    segment.unlink()
    segment.close()
    assert mappings(segment.name) == 0
    until(lambda: mappings(segment.name, worker) == 0)


def test_a_new_segment_of_an_old_name_is_the_new_one(segment: SharedMemory) -> None:
    segment.buf[:3] = b"old"
    segment.unlink()
    new = SharedMemory(segment.name, create=True, size=10)
    new.buf[:3] = b"new"
    assert bytes(SharedMemory(segment.name).buf[:3]) == b"new"
    assert bytes(segment.buf[:3]) == b"old"
    new.close()
    new.unlink()


def test_an_array_may_outlive_the_segment_that_it_was_made_of() -> None:
    segment = SharedMemory(create=True, size=1000)
    array: np.ndarray = np.ndarray((1000,), dtype=np.uint8, buffer=segment.buf)
    view = np.frombuffer(segment.buf, dtype=np.uint8)
    array[:] = 7
    segment.unlink()
    del segment
    time.sleep(1)  # for longer than the keeper sleeps: it must not unmap this
    assert array.sum() == view.sum() == 7000


def test_a_segment_may_be_closed_while_an_array_that_was_made_of_it_is_in_use(segment: SharedMemory) -> None:
    array = np.frombuffer(segment.buf, dtype=np.uint8)
    segment.close()
    assert segment.buf is None
    assert array.sum() == 0


def test_a_view_may_outlive_what_it_was_taken_from(segment: SharedMemory) -> None:
    assert SharedMemory(segment.name).buf[0] == 0


def test_thousands_of_segments_leave_no_descriptors_and_no_mappings() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(2000):
        segment = SharedMemory(f"test_many_{os.getpid()}", create=True, size=100)
        if number % 2:
            segment.unlink()
            segment.close()
        else:
            segment.close()
            segment.unlink()
    assert mappings("test_many_") == 0
    # One may be new: the ledger's.
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)


def test_a_segment_that_has_no_room_is_an_error_at_once_and_leaves_no_name() -> None:
    with pytest.raises(shoal.OutOfSharedMemory, match=r"no room for 1125899906842624 bytes \(\d+ of \d+ are free\)"):
        SharedMemory("test_no_room", create=True, size=1 << 50)
    assert not is_there("test_no_room")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"create": True, "size": -1}, "'size' must be a positive integer"),
        ({"create": True}, "'size' must be a positive number different from zero"),
        ({}, "'name' can only be None if create=True"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharedMemory(**arguments)


def test_a_forked_child_goes_on_with_what_it_inherited(segment: SharedMemory) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            other = SharedMemory(segment.name)
            other.buf[0], segment.buf[1] = 1, 2
            other.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert bytes(segment.buf[:2]) == b"\1\2"
    assert is_there(segment.name)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_segment_pickles_to_its_name(segment: SharedMemory, protocol: int) -> None:
    other = pickle.loads(pickle.dumps(segment, protocol))
    other.buf[0] = 42
    assert segment.buf[0] == 42
    assert repr(other) == f"SharedMemory({segment.name!r}, size=100000)"


VALUES = [1, -(2**63), 2.5, True, None, "drei", "Grüße", "", b"bytes"]


def test_a_list_has_what_was_put_in_and_what_is_assigned() -> None:
    values = ShareableList(VALUES)
    assert list(values) == VALUES
    values[1], values[5] = 5, "vier"
    copy = pickle.loads(pickle.dumps(values))
    assert type(copy) is shared_memory.ShareableList
    assert list(copy) == [1, 5, 2.5, True, None, "vier", "Grüße", "", b"bytes"]
    with pytest.raises(ValueError, match="exceeds available storage"):
        values[5] = "much longer than that"
    values.shm.unlink()


def test_an_empty_list_is_a_list() -> None:
    values = ShareableList()
    assert list(values) == list(ShareableList(name=values.shm.name)) == []
    values.shm.unlink()


def test_plain_multiprocessing_reads_a_list_and_the_other_way_round() -> None:
    values = ShareableList(VALUES)
    program = start(
        """
        import sys
        from multiprocessing import resource_tracker, shared_memory
        values = shared_memory.ShareableList(name=sys.argv[1])
        resource_tracker.unregister("/" + sys.argv[1], "shared_memory")
        mine = shared_memory.ShareableList(values)
        print(list(values) == eval(sys.argv[2]), mine.shm.name, flush=True)
        sys.stdin.read()
        mine.shm.unlink()
        """,
        values.shm.name,
        repr(VALUES),
    )
    assert program.stdout is not None
    same, name = program.stdout.readline().split()
    assert same == "True"
    assert list(ShareableList(name=name)) == VALUES
    assert program.communicate(timeout=100) == ("", "")
    values.shm.unlink()


def test_a_segment_may_be_closed_by_a_finalizer_wherever_the_collector_comes() -> None:
    program = start("""
        import gc
        from shoal.multiprocessing.shared_memory import SharedMemory

        class Holder:
            def __init__(self):
                self.segment, self.me = SharedMemory(create=True, size=5000), self

            def __del__(self):
                self.segment.close()
                self.segment.unlink()

        gc.set_threshold(3)
        for _ in range(300):
            Holder()
        gc.collect()
        print("done")
    """)
    assert program.communicate(timeout=150) == ("done\n", "")
