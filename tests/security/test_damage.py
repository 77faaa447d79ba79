"""What becomes of memory and handles that somebody has written over: an error, never a crash, never a hang.

The formats by themselves are tested beside the engine's code (`damage.rs`); here programs meet a worker that runs wild.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shoal
from shoal import _engine
from tests.conftest import Run

MAGIC = b"shl1"
# Bytes of a handle: the mark, the domain's name, its token, and which block.
FRONT, WHOLE = 4 + 16 + 16, 4 + 16 + 16 + 12

THINGS: list[Any] = [
    shoal.Lock(),
    shoal.RLock(),
    shoal.Event(),
    shoal.Semaphore(3),
    shoal.Condition(),
    shoal.Barrier(2),
    shoal.Counter(5),
    shoal.Value("d", 1.5),
    shoal.Queue(),
    shoal.array(numpy.arange(1000.0)),
    shoal.array(numpy.arange(100_000.0)),
]


@settings(max_examples=300)
@given(st.sampled_from(THINGS), st.integers(0, 8 * (WHOLE - FRONT) - 1))
def test_a_handle_of_which_a_bit_is_other_than_it_was_is_an_error_or_another_thing_like_it(
    thing: Any, bit: int
) -> None:
    pickled = bytearray(pickle.dumps(thing))
    at = pickled.rindex(MAGIC) + FRONT + bit // 8
    pickled[at] ^= 1 << bit % 8
    try:
        other = pickle.loads(pickled)
    except (shoal.ShoalError, TypeError, ValueError):  # where an array does not fit into another block
        return
    assert type(other) is type(thing)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_handle_are_refused(garbage: bytes) -> None:
    for handle in (garbage, MAGIC + garbage):
        if len(handle) != WHOLE:
            with pytest.raises(shoal.ShoalError, match="damaged handle"):
                _engine.open_block(handle)


def test_a_handle_of_another_kind_of_thing_is_refused() -> None:
    lock, counter = pickle.dumps(shoal.Lock()), pickle.dumps(shoal.Counter())
    handle = lock[lock.index(MAGIC) :][:WHOLE]
    damaged = counter[: counter.index(MAGIC)] + handle + counter[counter.index(MAGIC) + WHOLE :]
    with pytest.raises(shoal.ShoalError, match="something else"):
        pickle.loads(damaged)


# The tasks are of this program: it runs elsewhere.
PROGRAM = (
    Path(__file__).with_name("programs.py").read_text()
    + """
import faulthandler, random, sys
import shoal

segment, seed, words, span = sys.argv[1], *(int(word) for word in sys.argv[2:])
faulthandler.dump_traceback_later(120, exit=True)
ends = {}
def end(what, call):
    try:
        call()
        kind = "right"
    except Exception as error:
        kind = type(error).__name__
    ends.setdefault(kind, []).append(what)
def check(result, expected):
    if result.get() != expected:
        raise AssertionError("wrong")
pool = shoal.Pool(2)
assert pool.map(double, range(100)) == list(range(0, 200, 2))
before = [pool.apply_async(double, (number,)) for number in range(50)]
wild = pool.apply_async(scribble, (segment, seed, words, span))
behind = [pool.apply_async(double, (number,)) for number in range(50)]
for number, result in enumerate(before):
    end(number, lambda: check(result, 2 * number))
end("wild", lambda: check(wild, True))
for number, result in enumerate(behind):
    end(number, lambda: check(result, 2 * number))
end("map", lambda: pool.map(double, range(1000)))
pool.terminate()
pool.join()
print({kind: len(ended) for kind, ended in ends.items()})
"""
)


def wild(run: Run, segment: str, seed: int, words: int, span: int) -> str:
    answer = run(PROGRAM, segment, str(seed), str(words), str(span))
    # It ends, by itself, whatever it has met.
    assert answer.returncode == 0, (answer.stdout, answer.stderr)
    return answer.stdout


@pytest.mark.parametrize("seed", range(4))
def test_a_program_lives_on_when_a_worker_writes_over_what_its_pool_coordinates_by(run: Run, seed: int) -> None:
    wild(run, "shoal-pool", seed, 60, 4096)
    wild(run, "shoal-pool", seed, 2000, 200_000)


@pytest.mark.parametrize("seed", range(2))
def test_a_program_lives_on_when_a_worker_writes_over_who_is_who(run: Run, seed: int) -> None:
    wild(run, "shoal-roster", seed, 100, 4096)


@pytest.mark.parametrize("seed", range(4))
def test_a_program_lives_on_when_a_worker_writes_over_tables_and_data(run: Run, seed: int) -> None:
    wild(run, "shoal", seed, 300, 40_000)


def test_a_bar_that_was_written_over_shows_what_was_known_before() -> None:
    with shoal.tqdm(total=10, desc="before") as bar:
        pickle.dumps(bar)
        shared = bar.shared
        assert shared is not None
        page = memoryview(shared._page)  # type: ignore[arg-type]
        for garbage in (b"\x80\x05", bytes(4000), b"\xff" * 4000, pickle.dumps([1])):
            version = shared.version + 1
            at = 16 + (version & 1) * 4088
            page[at : at + 4 + len(garbage)] = len(garbage).to_bytes(4, "little") + garbage
            page[0:8] = version.to_bytes(8, "little")
            assert shared.news() in (None, shared._fields)
            bar.update()
            bar.set_description("behind")
            assert bar.desc.startswith("behind")
