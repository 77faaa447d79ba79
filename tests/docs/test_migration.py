"""The migration tables are true: what stands on the right runs, and gives what the left gives.

A cell that is Python and nothing else is run; words and fragments are for the reader. The left of ray's table is
not run: that would start a cluster.
"""

import ast
import concurrent.futures
import multiprocessing.shared_memory
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import joblib
import mpire
import numpy
import pytest

import shoal

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
GIVEN = {"f": abs, "g": pow, "x": -1, "items": [-1, 2, -3], "pairs": [(2, 3), (4, 5)], "array": numpy.arange(3)}


def rows(tool: str) -> list[tuple[str, str]]:
    """The code on the left and on the right, of the rows that have code on both sides."""
    (section,) = re.findall(rf"^## {tool}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    cells = [[cell.strip() for cell in line.split(" | ")] for line in section.splitlines() if line.startswith("| ")]
    pairs = [(left.removeprefix("| ").strip("`"), right.strip("`")) for left, right, *_ in cells[2:] if "`" in right]
    return [pair for pair in pairs if all(map(is_python, pair))]


def is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def value(code: str, names: dict[str, object]) -> object:
    """What an expression is, or the value that a statement assigns. What has to be ended is ended."""
    (statement,) = ast.parse(code).body
    assert isinstance(statement, ast.Expr | ast.Assign)
    found = eval(compile(ast.Expression(statement.value), PAGE.name, "eval"), {**GIVEN, **names})
    if found is not names["pool"]:
        for end in ("terminate", "join", "shutdown", "unlink"):
            if not isinstance(found, shoal.Queue | str) and hasattr(found, end):
                getattr(found, end)()
    return found


@pytest.fixture(scope="module")
def right() -> Iterator[dict[str, object]]:
    """The names of the right side."""
    with shoal.Pool(2) as pool:
        modules = {"shoal": shoal, "concurrent": concurrent, "multiprocessing": multiprocessing}
        yield {**modules, "pool": pool, "futures": [pool.submit(abs, -1)]}
    pool.join()


@pytest.fixture(scope="module")
def plain() -> Iterator[dict[str, object]]:
    """The standard library's; its processes are not forks of this one, which has threads."""
    context = multiprocessing.get_context("spawn")
    names = {name: getattr(context, name) for name in dir(context) if not name.startswith("_")}
    with context.Pool(2) as pool:
        yield {
            "pool": pool,
            "concurrent": concurrent,
            "multiprocessing": SimpleNamespace(**names | {"shared_memory": multiprocessing.shared_memory}),
        }
    pool.join()


@pytest.fixture(scope="module")
def of_mpire() -> Iterator[dict[str, object]]:
    with mpire.WorkerPool(2, start_method="threading") as pool:
        yield {"pool": pool, "mpire": mpire}


OF_JOBLIB = {"pool": None, "joblib": joblib, "Parallel": joblib.Parallel, "delayed": joblib.delayed}


def check(left: object, right: object) -> None:
    """Results are the same; what is made is of another kind, on purpose."""
    if isinstance(left, list) and isinstance(right, list):
        assert left == right


@pytest.mark.parametrize(("code", "ours"), rows("multiprocessing"))
def test_multiprocessing(code: str, ours: str, plain: dict[str, object], right: dict[str, object]) -> None:
    check(value(code, plain), value(ours, right))


@pytest.mark.parametrize(("code", "ours"), rows("joblib"))
def test_joblib(code: str, ours: str, right: dict[str, object]) -> None:
    with joblib.parallel_config(backend="threading"):  # what is called how does not depend on it
        check(value(code, OF_JOBLIB), value(ours, right))


@pytest.mark.parametrize(("code", "ours"), rows("mpire"))
def test_mpire(code: str, ours: str, of_mpire: dict[str, object], right: dict[str, object]) -> None:
    check(value(code, of_mpire), value(ours, right))


@pytest.mark.parametrize("ours", [ours for _, ours in rows("ray")])
def test_ray(ours: str, right: dict[str, object]) -> None:
    value(ours, right)
