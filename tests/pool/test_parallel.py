"""`shoal.parallel`: a loop over indices, run by all workers in place."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shoal
from shoal.loops import _pieces
from tests.conftest import Run
from tests.pool import tasks


@shoal.parallel
def count(start: int, stop: int, visits: Any, step: int = 1) -> None:
    """Notes each visit to an index."""
    for i in range(start, stop, step):
        visits[i] += 1


@shoal.parallel(workers=3, chunks=10)
def note_process(start: int, stop: int, out: Any) -> None:
    out[start:stop] = os.getpid()


class Model:
    def __init__(self) -> None:
        self.factor, self.out = 3, shoal.zeros(10, int)

    @shoal.parallel(workers=2)
    def fill(self, start: int, stop: int, offset: int) -> None:
        self.out[start:stop] = numpy.arange(start, stop) * self.factor + offset


@pytest.mark.parametrize("length", [0, 1, 2, 10, 1000])
def test_each_index_is_visited_once(length: int) -> None:
    visits = shoal.zeros(1001, int)
    assert count(length, visits) is None
    assert visits.tolist() == [1] * length + [0] * (1001 - length)


@pytest.mark.parametrize("indices", [range(3, 40), range(0, 50, 7), range(49, -1, -1), range(40, 3, -6), range(5, 5)])
def test_a_range_may_begin_anywhere_and_have_a_step(indices: range) -> None:
    visits = shoal.zeros(50, int)
    count(indices, visits, step=indices.step)
    assert numpy.flatnonzero(visits).tolist() == sorted(indices)
    assert visits.max(initial=0) <= 1


@settings(deadline=None)
@given(
    st.integers(-100, 100),
    st.integers(-2000, 2000),
    st.sampled_from([1, 2, 7, -1, -3]),
    st.none() | st.integers(1, 50),
    st.integers(1, 64),
)
def test_the_pieces_are_the_range(start: int, stop: int, step: int, chunks: int | None, workers: int) -> None:
    whole = range(start, stop, step)
    pieces = [range(*piece, step) for piece in _pieces(whole, chunks, workers)]
    assert [i for piece in pieces for i in piece] == list(whole)
    assert all(pieces)
    if chunks is not None:
        assert all(len(piece) == chunks for piece in pieces[:-1])
    else:
        assert [len(piece) for piece in pieces] == sorted((len(piece) for piece in pieces), reverse=True)
        assert len(pieces) <= 64 * workers


def test_the_pieces_of_a_long_loop_are_few() -> None:
    assert len(_pieces(range(10**9), None, 2)) < 100


def test_it_runs_in_as_many_workers_as_asked_for() -> None:
    out = shoal.zeros(1000, int)
    note_process(1000, out)
    first = set(out.tolist())
    note_process(1000, out)
    assert os.getpid() not in first and len(first) <= 3
    assert len(first | set(out.tolist())) <= 3  # the same workers, still warm
    assert all(len(set(out[i : i + 10].tolist())) == 1 for i in range(0, 1000, 10))


def test_it_runs_here_in_a_program_whose_pools_run_on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.pool.default_cluster", "tcp://127.0.0.1:1")
    out = shoal.zeros(10, dtype=int)

    @shoal.parallel
    def count(start: int, stop: int, out: Any) -> None:
        out[start:stop] = range(start, stop)

    count(10, out)
    assert out.tolist() == list(range(10))


def test_methods_loop_too() -> None:
    model = Model()
    model.fill(10, 5)
    assert model.out.tolist() == [i * 3 + 5 for i in range(10)]


def test_lambdas_and_closures_loop_too() -> None:
    out = shoal.zeros(10)
    shoal.parallel(lambda start, stop: out[start:stop].fill(stop - start), chunks=5)(10)
    assert out.tolist() == [5] * 10


def test_a_kernel_of_the_script_may_read_its_globals(run: Run) -> None:
    program = run(
        """
        import shoal
        FACTOR = 3

        @shoal.parallel(workers=2)
        def fill(start, stop, out):
            for i in range(start, stop):
                out[i] = i * FACTOR

        out = shoal.empty(5, int)
        fill(5, out)
        print(out.tolist())
        """
    )
    assert (program.stdout, program.stderr) == ("[0, 3, 6, 9, 12]\n", "")


def test_files_and_counters_may_be_changed(tmp_path: Path) -> None:
    file = shoal.open_array(tmp_path / "a.npy", "w+", dtype=int, shape=20)
    total = shoal.Counter()

    @shoal.parallel(workers=2)
    def fill(start: int, stop: int, out: Any, total: shoal.Counter) -> None:
        out[start:stop] = 4
        total.add(stop - start)

    fill(20, file, total=total)
    assert (int(file.sum()), total.value) == (80, 20)


def test_ordinary_arrays_can_be_read_as_what_they_are() -> None:
    @shoal.parallel(workers=2)
    def add(start: int, stop: int, a: Any, b: Any, out: Any) -> None:
        assert type(a) is numpy.ndarray
        out[start:stop] = a[start:stop] + b[start]

    a = numpy.arange(10)
    out = shoal.zeros(10, int)
    add(10, a, numpy.array([None] * 10) == None, out)  # noqa: E711
    assert out.tolist() == [i + 1 for i in range(10)]
    assert a.flags.writeable


@pytest.mark.parametrize("out", [numpy.zeros(10), numpy.zeros(10, object)], ids=["numbers", "objects"])
def test_a_write_that_would_be_lost_is_an_error(out: Any) -> None:
    with pytest.raises(ValueError, match="read-only") as caught:
        count(10, out)
    assert "shoal.zeros" in caught.value.__notes__[-1]
    assert out.tolist() == [0] * 10


def test_an_exception_of_the_kernel_names_the_indices() -> None:
    @shoal.parallel(workers=2, chunks=3)
    def fail(start: int, stop: int) -> None:
        if stop > 4:
            tasks.fail("stop")

    with pytest.raises(ValueError, match="stop") as caught:
        fail(10)
    assert caught.value.__notes__ == ["raised for indices 3:6"]


def test_it_looks_like_the_function() -> None:
    assert count.__name__ == "count"
    assert count.__doc__ == "Notes each visit to an index."
    assert pickle.loads(pickle.dumps(count)) is count
    assert pickle.loads(pickle.dumps(shoal.parallel(tasks.square, chunks=2))).kernel is tasks.square


def test_what_makes_no_sense_is_an_error() -> None:
    with pytest.raises(TypeError, match="kernel must be callable"):
        shoal.parallel(4)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="workers must be 1 to 500"):
        shoal.parallel(workers=0)
    with pytest.raises(ValueError, match="chunks must be 1 or more"):
        shoal.parallel(chunks=0)
    with pytest.raises(TypeError, match="an integer or a range, not float"):
        count(1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative number of indices"):
        count(-1)
