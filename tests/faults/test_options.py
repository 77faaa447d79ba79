"""The options of tasks: where they may be given, and what is refused at once."""

from typing import Any

import pytest

import shoal
from tests.pool.tasks import square

WRONG = [
    ({"timeout": 0}, ValueError, "timeout must be None or more than 0 seconds, not 0"),
    ({"timeout": -1.5}, ValueError, "timeout must be None or more than 0 seconds, not -1.5"),
    ({"timeout": "1"}, TypeError, "timeout must be None or a number of seconds, not str"),
    ({"timeout": float("nan")}, ValueError, "timeout must be None or more than 0 seconds, not nan"),
    ({"retries": -1}, ValueError, "retries must be 0 or more, and less than 2\\*\\*31, not -1"),
    ({"retries": 1.5}, TypeError, "retries must be an integer, not float"),
    ({"retry_on": 3}, TypeError, "retry_on must be an exception class or a tuple of them, not 3"),
    (
        {"retry_on": (OSError, int)},
        TypeError,
        "retry_on must be an exception class or a tuple of them, not <class 'int'>",
    ),
    ({"retry_delay": -1}, ValueError, "retry_delay must be 0 seconds or more, not -1"),
    ({"priority": "high"}, TypeError, "priority must be an integer, not str"),
    ({"priority": 2**40}, ValueError, "priority must be a 32-bit number"),
    ({"tiemout": 3}, TypeError, "unexpected keyword argument 'tiemout'; the options of a task are timeout, retries"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG, ids=[str(wrong[0]) for wrong in WRONG])
def test_what_is_wrong_is_refused_by_the_pool_by_options_and_by_each_call(
    pool: shoal.Pool, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        shoal.Pool(1, **options)
    with pytest.raises(error, match=message):
        pool.options(**options)
    for call in (pool.apply, pool.apply_async):
        with pytest.raises(error, match=message):
            call(square, (1,), **options)
    for call in (pool.map, pool.map_async, pool.imap, pool.imap_unordered):
        with pytest.raises(error, match=message):
            call(square, [1], **options)
    for call in (pool.starmap, pool.starmap_async):
        with pytest.raises(error, match=message):
            call(square, [(1,)], **options)
    assert pool.apply(square, (3,)) == 9


def test_endless_is_as_good_as_no_limit(pool: shoal.Pool) -> None:
    assert pool.apply(square, (3,), timeout=float("inf"), retries=1, retry_delay=float("inf")) == 9


def test_options_of_options_add_up() -> None:
    with shoal.Pool(1, retries=1) as pool:
        view = pool.options(timeout=60).options(priority=3)
        assert view._terms.options == {"retries": 1, "timeout": 60, "priority": 3}
        assert pool._terms.options == {"retries": 1}


def test_a_pool_seen_with_options_is_the_same_pool(pool: shoal.Pool) -> None:
    view = pool.options(timeout=60)
    assert view.workers[0].pid == pool.workers[0].pid
    called: list[int] = []
    result = view.apply_async(square, (3,), callback=called.append)
    result.wait()
    assert called == [9]
    del view
    assert pool.apply(square, (3,)) == 9
    pool.options(priority=1).terminate()
    with pytest.raises(shoal.PoolClosed):
        pool.apply(square, (3,))


def test_the_keyword_arguments_of_submit_are_the_functions(pool: shoal.Pool) -> None:
    assert pool.submit(dict, timeout=3, retries=4).result() == {"timeout": 3, "retries": 4}
    assert pool.options(timeout=60).submit(dict, timeout=3).result() == {"timeout": 3}


def test_threads_have_none_of_them_as_they_cannot_be_stopped() -> None:
    with shoal.Pool(1, kind="thread") as pool:
        with pytest.raises(ValueError, match="timeout is for processes"):
            pool.apply(square, (3,), timeout=3)
        with pytest.raises(ValueError, match="retries is for processes"):
            pool.map(square, [3], retries=3)
        assert pool.apply(square, (3,)) == 9
