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
from shoal.reports.worker import _levels_in
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


LEVELS = pickle.dumps((10, {"root": 30, "app": 10, "app.part": 20}), 5)


@given(st.data())
def test_levels_that_were_written_over_are_levels_or_none(data: st.DataObject) -> None:
    told = bytearray(LEVELS)
    for _ in range(data.draw(st.integers(1, 4))):
        told[data.draw(st.integers(0, len(told) - 1))] = data.draw(st.integers(0, 255))
    levels = _levels_in(bytes(told[: data.draw(st.integers(0, len(told)))]))
    if levels is not None:
        disabled, own = levels
        assert type(disabled) is int
        assert {type(name) for name in own} <= {str} and {type(level) for level in own.values()} <= {int}


def test_levels_as_they_were_left_are_taken() -> None:
    assert _levels_in(LEVELS) == (10, {"root": 30, "app": 10, "app.part": 20})


def test_whatever_a_worker_reports_the_next_record_is_heard_and_its_result_comes(run: Run) -> None:
    answer = run("""
        import logging, pickle, random, sys
        import shoal

        def report(seed):
            log = logging.getLogger("app")
            (forwarding,) = logging.getLogger().handlers
            dice = random.Random(seed)
            sound = pickle.dumps(("record", {"name": "app", "levelno": 30, "msg": "x", "args": ()}, {}), 5)
            warning = pickle.dumps(("warning", "text", [("builtins", "UserWarning")], "file.py", 1, None, None), 5)
            others = (("record", 1), ("record", {}, {}), ("record",), ("warning", 1), "what", ("nothing",), ())
            messages = [b"", b"no pickle", bytes(100_000), *(pickle.dumps(other, 5) for other in others)]
            for _ in range(100):
                damaged = bytearray(dice.choice([sound, warning]))
                damaged[dice.randrange(len(damaged))] = dice.randrange(256)
                messages.append(bytes(damaged[: dice.randrange(len(damaged) + 1)]))
            for message in messages:
                forwarding._reporter.report(message)
            log.warning("the next: %d", seed)
            return seed

        class Kept(logging.Handler):
            def emit(self, record):
                if record.msg == "the next: %d":
                    kept.append(record.args)

        kept = []
        logging.getLogger("app").addHandler(Kept())
        logging.getLogger("app").propagate = False
        sys.unraisablehook = lambda unraisable: None
        with shoal.Pool(1) as pool:
            for seed in range(5):
                assert pool.apply(report, (seed,)) == seed
                assert kept[-1] == (seed,), kept
        print("heard")
    """)
    assert answer.stdout == "heard\n", answer.stderr


def test_an_item_of_a_queue_in_which_something_is_other_than_it_was_is_an_item_or_an_error(run: Run) -> None:
    """Values in their own form, pickles, arrays beside them: what tasks and results are made of, too."""
    answer = run(
        """
        import pathlib, random, re, signal
        import numpy
        import shoal

        MARK = b"here it is"
        queue = shoal.Queue()
        dice = random.Random(7)
        kinds = {
            "text": lambda: MARK.decode() + "x" * dice.randrange(50),
            "bytes": lambda: MARK + bytes(dice.randrange(50)),
            "pickle": lambda: [MARK, 1.5, {"a": None}],
            "array": lambda: (MARK, numpy.arange(5000)),
            "arrays": lambda: {"mark": MARK, "a": numpy.ones((100, 100), "f4"), "b": numpy.zeros(9000, "M8[s]")},
            "number": lambda: int.from_bytes(MARK[:7]),
        }
        ends = {}
        # Nothing waits for ever, whatever is read.
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(SystemExit("it hangs")))
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            for turn in range(600):
                kind = dice.choice(list(kinds))
                queue.put(kinds[kind]())
                mark = MARK[:7][::-1] if kind == "number" else MARK
                found = []
                for line in open("/proc/self/maps"):
                    if "/memfd:shoal " in line and line.split()[1] == "rw-s":
                        start, end = (int(address, 16) for address in line.split()[0].split("-"))
                        memory.seek(start)
                        whole = memory.read(min(end - start, 1 << 20))
                        found += [start + match.start() for match in re.finditer(re.escape(mark), whole)]
                assert found, kind
                # Around the last one, and before it, where handles and lengths are.
                at = found[-1] + dice.randrange(-150, 60)
                memory.seek(at)
                byte = memory.read(1)[0]
                memory.seek(at)
                memory.write(bytes([dice.choice([byte ^ 1 << dice.randrange(8), dice.randrange(256)])]))
                signal.alarm(60)
                try:
                    item = queue.get(timeout=0.01)
                    numpy.array_equal(item, item) if kind.startswith("array") else repr(item)
                    end = "an item"
                except Exception as error:
                    end = "empty" if type(error).__name__ == "Empty" else "an error"
                signal.alarm(0)
                ends[end] = ends.get(end, 0) + 1
                if end != "an item":
                    # What lies in it may make no sense from here on.
                    queue = shoal.Queue()
        print(sorted(ends))
        """
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert answer.stdout in ("['an error', 'an item']\n", "['an error', 'an item', 'empty']\n"), answer.stdout


class OfObjects:
    """Pretends that a buffer holds references to objects."""

    def __reduce__(self) -> Any:
        return _engine.restore_array, (0, numpy.dtype(object))


def test_a_buffer_is_never_taken_for_addresses_of_objects() -> None:
    with shoal.Pool(1) as pool, pytest.raises(shoal.ShoalError, match="damaged message"):
        pool.apply(len, ([numpy.full(8000, 1 << 40), OfObjects()],))
