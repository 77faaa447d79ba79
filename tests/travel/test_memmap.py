"""numpy.memmap: the place of the file travels, not its content; where that can't be, the content does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    np.arange(10_000, dtype="i4").tofile(path)
    return path


def described(array: Any) -> tuple[Any, ...]:
    return type(array).__name__, array.mode, str(array.filename), array.flags.writeable, array.tolist()


PARTS: list[Any] = [
    np.s_[:],
    np.s_[10:20],
    np.s_[20:10:-3],
    np.s_[5:6],
]


@pytest.mark.parametrize("offset", [0, 4, 4096, 5000])
@pytest.mark.parametrize("part", PARTS, ids=str)
def test_a_part_arrives_as_a_memmap_of_the_same_file(pool: shoal.Pool, path: Path, offset: int, part: Any) -> None:
    whole = np.memmap(path, "i4", "r", offset, shape=(100, 10), order="F")
    for array in (whole[part], whole.T[1:3, part]):
        assert pool.apply(described, (array,)) == ("memmap", "r", str(path), False, array.tolist())


@pytest.mark.parametrize("offset", [0, 4, 4096, 5000])
def test_it_comes_back_as_it_was(pool: shoal.Pool, path: Path, offset: int) -> None:
    array = np.memmap(path, "i4", "r", offset, shape=(100, 10))
    assert described(pool.apply(lambda array: array, (array,))) == described(array)


def test_what_a_worker_writes_is_in_the_file(pool: shoal.Pool, path: Path) -> None:
    def negate(array: Any) -> None:
        array *= -1

    whole = np.memmap(path, "i4", "r+")
    pool.map(negate, np.array_split(whole, 7))
    assert (whole == -np.arange(10_000)).all()
    assert (np.fromfile(path, "i4") == whole).all()


def test_its_content_does_not_travel(path: Path) -> None:
    os.truncate(path, 1 << 30)
    assert shoal.why([np.memmap(path, "u1", "r")]).nbytes < 1000


def test_private_changes_travel_as_a_copy(pool: shoal.Pool, path: Path) -> None:
    private = np.memmap(path, "i4", "c")
    private[0] = 7
    assert pool.apply(lambda a: a[:3].tolist(), (private,)) == [7, 1, 2]
    assert np.fromfile(path, "i4")[0] == 0


def test_what_was_computed_from_one_is_an_array(pool: shoal.Pool, path: Path) -> None:
    doubled = 2 * np.memmap(path, "i4", "r")
    assert pool.apply(lambda a: a[:3].tolist(), (doubled,)) == [0, 2, 4]


@pytest.mark.parametrize("end", ["deleted", "replaced"])
def test_of_a_file_that_is_gone_the_content_travels(pool: shoal.Pool, path: Path, end: str) -> None:
    array = np.memmap(path, "i4", "r")
    assert pool.apply(lambda a: int(a[1]), (array,)) == 1
    if end == "deleted":
        path.unlink()
    else:
        np.zeros(10_000, "i4").tofile(path.with_name("new"))
        os.replace(path.with_name("new"), path)
    assert pool.apply(lambda a: int(a[1]), (array,)) == 1
    assert pool.apply(lambda a: int(a[1]), (np.memmap.__getitem__(array, np.s_[1:]),)) == 2


def test_a_task_maps_the_file_once(pool: shoal.Pool, path: Path) -> None:
    def mappings(rows: list[Any]) -> int:
        maps = Path("/proc/self/maps").read_text()
        return maps.count(str(rows[0].filename))

    assert pool.apply(mappings, (list(np.memmap(path, "i4", "r", shape=(100, 100))),)) == 1
