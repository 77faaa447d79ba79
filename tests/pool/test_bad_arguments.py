"""Bad arguments are an error at once, which names them and says what would be right."""

from collections.abc import Callable
from typing import Any

import pytest

import shoal


@pytest.fixture(scope="module", params=["process", "thread"])
def either(request: pytest.FixtureRequest) -> Any:
    with shoal.Pool(1, kind=request.param) as pool:
        yield pool
    pool.join()


@pytest.mark.parametrize("call", ["map", "starmap", "imap", "imap_unordered", "map_async", "starmap_async"])
@pytest.mark.parametrize("wrong", [5, None, len])
def test_what_cannot_be_iterated_over(either: Any, call: str, wrong: object) -> None:
    with pytest.raises(TypeError, match=f"iterable must be iterable, not {type(wrong).__name__}"):
        getattr(either, call)(abs, wrong)


def test_an_asynchronous_iterable(either: Any) -> None:
    async def numbers() -> Any:
        yield 1

    with pytest.raises(TypeError, match=r"not async_generator; asynchronous ones are for imap of pool\.aio"):
        either.map(abs, numbers())


def test_old_ways_to_iterate_are_fine(either: Any) -> None:
    class Old:
        def __getitem__(self, index: int) -> int:
            return [1, -2][index]

    assert either.map(abs, Old()) == [1, 2]


def test_several_iterables(either: Any) -> None:
    with pytest.raises(TypeError, match="chunksize must be an integer, not list; for several iterables use starmap"):
        either.map(pow, [1, 2], [3, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5,), "args must be iterable, not int"),
        (((), 5), "kwds must be a dict, not int"),
        (((), [1]), "kwds must be a dict, not list"),
    ],
)
@pytest.mark.parametrize("call", ["apply", "apply_async"])
def test_arguments_of_a_call(either: Any, call: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(either, call)(abs, *arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shoal.Pool(1, abs, 5), "initargs must be iterable, not int"),
        (lambda: shoal.Pool(1, preload=5), "preload must be iterable, not int"),
        (lambda: shoal.Pool(n_jobs=2), "'n_jobs': here it is processes of Pool"),
        (lambda: shoal.Pool(2, worker_lifespan=2), "'worker_lifespan': here it is maxtasksperchild of Pool"),
        (lambda: shoal.Pool(max_workers=2, kind="thread"), "'max_workers': here it is processes of Pool"),
        (lambda: shoal.Executor(processes=2), "'processes': here it is max_workers of Executor"),
        (lambda: shoal.Executor(2, maxtasksperchild=2), "here it is max_tasks_per_child of Executor"),
        (lambda: shoal.map(abs, [1], chunk_size=2), "'chunk_size': here it is chunksize"),
    ],
)
def test_what_other_tools_call_otherwise(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_what_calls_of_other_tools_call_otherwise(either: Any) -> None:
    with pytest.raises(TypeError, match="'progress_bar': here it is progress"):
        either.map(abs, [1], progress_bar=True)
    with pytest.raises(TypeError, match="'nonsense'; the options of a task are timeout, retries"):
        either.map(abs, [1], nonsense=True)


@pytest.mark.parametrize("name", ["nowhere_at_all", "nowhere.at_all"])
def test_a_module_to_preload_that_is_not_there(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"preload: no module named '{name}'"):
        shoal.Pool(1, preload=[name])


def test_a_name_that_multiprocessing_has() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Manager': shoal\.multiprocessing has it"):
        shoal.Manager  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        shoal.nonsense  # noqa: B018


class Mine(shoal.Pool):
    """A class below."""


@pytest.mark.parametrize(("name", "value"), [("cluster", "tcp://127.0.0.1:1"), ("kind", "thread")])
def test_a_class_below_pool_says_that_it_is_of_this_machines_processes(name: str, value: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: Mine, a class below shoal.Pool, has processes of this machine"):
        Mine(1, **{name: value})  # type: ignore[arg-type]


def test_a_class_below_pool_says_when_it_does_not_run_on_the_cluster_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shoal.pool.default_cluster", "tcp://127.0.0.1:1")
    with pytest.warns(RuntimeWarning, match="Mine, a class below"), Mine(1) as pool:
        assert pool.apply(abs, (-1,)) == 1


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_time_limit_of_nodes_is_for_clusters(kind: str) -> None:
    for make in (shoal.Pool, shoal.Executor):
        with pytest.raises(ValueError, match="node_timeout is for a pool on a cluster"):
            make(1, node_timeout=3.0, kind=kind)


def test_arguments_are_checked_before_a_stream_of_random_numbers_is_counted() -> None:
    with shoal.Pool(1, seed=1) as pool, shoal.Pool(1, seed=1) as other:
        with pytest.raises(TypeError, match="args must be iterable, not int"):
            pool.apply(abs, 5)  # type: ignore[arg-type]
        assert pool.apply(lambda: shoal.rng().random()) == other.apply(lambda: shoal.rng().random())
