"""What a bar shows, in shared memory: the latest of it, whole, whoever writes and dies."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
import shoal.progress.shared
from shoal._engine import Counted, RawTally
from shoal.progress.shared import Shared

FIELDS = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers() | st.text(max_size=30), max_size=3)


def same(shared: Shared) -> Shared:
    """The same in another process, as it were."""
    return Shared(*shared.parts)


@pytest.fixture
def shared() -> Shared:
    return Shared.make(RawTally(), {"desc": "first"})


@given(st.lists(st.tuples(st.booleans(), FIELDS), max_size=20))
def test_everybody_sees_the_latest_of_each_field(changes: list[tuple[bool, dict[str, Any]]]) -> None:
    one = Shared.make(RawTally(), {})
    other, model = same(one), {}
    for who, fields in changes:
        model |= fields
        assert (one if who else other).change(fields) == model
        for reader in (one, other):
            news = reader.news()
            assert news is None or news == model
    assert same(one).news() == model


def test_news_are_told_once(shared: Shared) -> None:
    other = same(shared)
    assert other.news() == {"desc": "first"}
    assert other.news() is None
    shared.change({"desc": "second"})
    assert other.news() == {"desc": "second"}


def test_who_dies_while_writing_leaves_what_was_there(shared: Shared) -> None:
    shared.change({"desc": "second"})
    # Half of a third version, in the place where it would lie; its number was never written.
    page = memoryview(shared.parts[3])
    idle = 16 + (shared.version + 1 & 1) * 4088
    page[idle : idle + 4088] = b"\xff" * 4088
    assert same(shared).news() == {"desc": "second"}
    assert shared.change({"total": 3}) == {"desc": "second", "total": 3}
    assert same(shared).news() == {"desc": "second", "total": 3}


def test_a_holder_that_does_not_let_go_stops_nobody_for_long(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shoal.progress.shared, "PATIENCE", 0.01)
    other = same(shared)
    with shared.lock:
        assert other.news(patience=0) is None
        other.change({"desc": "lost"})
        assert (other.refreshes, other.refresh(), shared.refreshes) == (0, None, 1)
    assert other.news() == {"desc": "first"}


def test_what_does_not_fit_and_is_no_text_is_refused(shared: Shared) -> None:
    with pytest.raises(ValueError, match="4084 bytes"):
        shared.change({"total": 1 << 100_000})
    assert same(shared).news() == {"desc": "first"}


def test_a_tally_is_a_handle() -> None:
    tally = RawTally()
    tally.update(3)
    again = pickle.loads(pickle.dumps(tally))
    again.update(1.5)
    assert tally.n == 4.5
    with pytest.raises(shoal.ShoalError, match="handle"):
        pickle.loads(pickle.dumps(tally).replace(b"shl1", b"shl0"))


def test_a_counted_function_counts_its_calls_however_they_end() -> None:
    tally = RawTally()
    function: Any = pickle.loads(pickle.dumps(Counted(divmod, tally)))
    assert function(7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        function(7, 0)
    assert tally.n == 2
    assert (function.__qualname__, function.__wrapped__) == ("divmod", divmod)


def test_what_was_read_is_noted_before_anybody_else_reads_or_changes_it(shared: Shared) -> None:
    class Notes(dict[str, Any]):
        def update(self, fields: dict[str, Any]) -> None:  # type: ignore[override]
            assert not shared.lock.acquire(block=False)
            super().update(fields)

    other, notes = same(shared), Notes()
    other.news(into=notes)
    assert notes == {"desc": "first"}
    shared.change({"desc": "second"}, notes)
    assert notes == {"desc": "second"}
