"""`shoal.open_array`: an array in a file, mapped by every process that it reaches."""

import copy
import gc
import os
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import shoal

Array = Any


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    path = tmp_path / "a.npy"
    numpy.save(path, numpy.arange(12.0).reshape(3, 4))
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "a.raw"
    numpy.arange(12, dtype="int16").tofile(path)
    return path


def there_and_back(array: Array) -> Array:
    return pickle.loads(pickle.dumps(array))


# ---- reading ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(array=npst.arrays(npst.scalar_dtypes().filter(lambda d: d.itemsize), npst.array_shapes(min_dims=0, min_side=0)))
def test_what_numpy_saved_is_what_is_opened(tmp_path_factory: Any, array: Array) -> None:
    path = tmp_path_factory.mktemp("files") / "a.npy"
    for saved in (array, numpy.asfortranarray(array)):
        numpy.save(path, saved)
        opened = shoal.open_array(path)
        assert type(opened) is shoal.FileArray
        assert (opened.shape, opened.dtype) == (saved.shape, saved.dtype)
        assert opened.flags.forc == saved.flags.forc
        assert opened.flags.f_contiguous == saved.flags.f_contiguous
        assert opened.tobytes() == saved.tobytes()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    array = numpy.zeros(3, [("größe" if version == (3, 0) else "size", "i4")])
    with open(tmp_path / "a.npy", "wb") as file:
        numpy.lib.format.write_array(file, array, version)
    assert shoal.open_array(tmp_path / "a.npy").dtype == array.dtype


def test_raw_files_are_read_as_asked_for(raw: Path) -> None:
    assert shoal.open_array(raw, dtype="int16").tolist() == list(range(12))
    assert shoal.open_array(raw, dtype="int16", offset=4).tolist() == list(range(2, 12))
    assert shoal.open_array(raw, dtype="int16", shape=(2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert shoal.open_array(raw, dtype="int16", shape=(2, 3), order="F").tolist() == [[0, 2, 4], [1, 3, 5]]
    assert shoal.open_array(str(raw), dtype="int16", shape=3, offset=1).tolist() == [256, 512, 768]


def test_a_file_opened_to_read_can_not_be_written_to(npy: Path) -> None:
    array = shoal.open_array(npy)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


def test_it_tells_what_it_is(npy: Path) -> None:
    array = shoal.open_array(npy)
    assert isinstance(array, shoal.FileArray)
    assert (array.filename, array.mode) == (str(npy), "r")
    assert isinstance(array[1:], shoal.FileArray) and array[1:].filename == str(npy)
    array.flush()


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_what_is_written_is_in_the_file(npy: Path) -> None:
    array = shoal.open_array(npy, "r+")
    array[1] = 7
    array.flush()  # type: ignore[attr-defined]
    assert numpy.load(npy)[1].tolist() == [7] * 4


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_new_file_is_full_of_zeros(tmp_path: Path, order: Any) -> None:
    path = tmp_path / "new.npy"
    array = shoal.open_array(path, "w+", dtype="float32", shape=(2, 3), order=order)
    assert not array.any()
    array[:] = [[1, 2, 3], [4, 5, 6]]
    loaded = numpy.load(path)
    assert (loaded.tolist(), loaded.dtype) == ([[1, 2, 3], [4, 5, 6]], "float32")
    assert loaded.flags.f_contiguous == array.flags.f_contiguous == (order == "F")
    raw = shoal.open_array(tmp_path / "new.raw", "w+", dtype="uint8", shape=3, offset=5)
    raw[:] = 9
    assert (tmp_path / "new.raw").read_bytes() == b"\0" * 5 + b"\x09" * 3
    assert sorted(os.listdir(tmp_path)) == ["new.npy", "new.raw"]


def test_an_array_without_items_can_be_made(tmp_path: Path) -> None:
    assert shoal.open_array(tmp_path / "a.npy", "w+", dtype=int, shape=(0, 3)).shape == (0, 3)
    assert numpy.load(tmp_path / "a.npy").shape == (0, 3)


def test_who_has_a_file_mapped_keeps_it_when_another_takes_its_name(npy: Path) -> None:
    old = shoal.open_array(npy)
    new = shoal.open_array(npy, "w+", dtype=int, shape=2)
    assert old[2, 3] == 11
    assert new.tolist() == [0, 0]
    assert there_and_back(old)[2, 3] == 11  # it is mapped here: no need to look for it


def test_a_file_that_takes_the_place_of_another_keeps_its_permissions_and_links(npy: Path) -> None:
    npy.chmod(0o640)
    link = npy.with_name("link.npy")
    link.symlink_to(npy)
    shoal.open_array(link, "w+", dtype=int, shape=2)[1] = 5
    assert numpy.load(npy).tolist() == [0, 5]
    assert link.is_symlink() and npy.stat().st_mode & 0o777 == 0o640


def test_only_regular_files_are_mapped(tmp_path: Path) -> None:
    for mode in ("r", "w+"):
        with pytest.raises(ValueError, match="no regular file"):
            shoal.open_array("/dev/null", mode, dtype="u1", shape=1)  # type: ignore[arg-type]
        with pytest.raises(IsADirectoryError):
            shoal.open_array(tmp_path, mode, dtype="u1", shape=1)  # type: ignore[arg-type]


def test_private_changes_stay_private_and_travel_as_a_copy(npy: Path) -> None:
    array = shoal.open_array(npy, "c")
    assert type(array) is numpy.ndarray
    array[0] = 7
    assert shoal.open_array(npy)[0].tolist() == [0, 1, 2, 3]
    assert there_and_back(array)[0].tolist() == [7] * 4


# ---- travelling ------------------------------------------------------------------------------------------------------


def test_a_handle_is_small_and_the_same_memory(tmp_path: Path) -> None:
    array = shoal.open_array(tmp_path / "a.raw", "w+", dtype="int64", shape=100_000)
    assert len(pickle.dumps(array)) < 1000
    there_and_back(array)[5] = 6
    assert array[5] == 6


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_any_view_travels_in_its_layout(tmp_path_factory: Any, data: st.DataObject) -> None:
    shape = data.draw(npst.array_shapes(max_dims=3, min_side=1, max_side=5))
    path = tmp_path_factory.mktemp("files") / "a.npy"
    numpy.save(path, numpy.asarray(numpy.random.rand(*shape), order=data.draw(st.sampled_from("CF"))))
    array = shoal.open_array(path, data.draw(st.sampled_from(["r", "r+"])))
    index = data.draw(npst.basic_indices(shape, allow_newaxis=True))
    view = array[(*index, ...) if isinstance(index, tuple) and ... not in index else index]
    if not isinstance(view, numpy.ndarray):
        return
    view = view.transpose(data.draw(st.permutations(range(view.ndim))))
    back = there_and_back(view)
    assert type(back) is shoal.FileArray
    assert (back.shape, back.strides, back.dtype) == (view.shape, view.strides, view.dtype)
    assert back.flags.writeable == view.flags.writeable
    assert back.tobytes() == view.tobytes()


def test_workers_map_the_same_file(npy: Path, pool: shoal.Pool) -> None:
    array = shoal.open_array(npy, "r+")

    def double(row: Array) -> tuple[str, str]:
        row *= 2
        return type(row).__name__, row.filename

    assert pool.map(double, list(array)) == [("FileArray", str(npy))] * 3
    assert array.tolist() == (numpy.arange(12.0) * 2).reshape(3, 4).tolist()
    pool.apply(lambda: array.fill(1))
    assert numpy.load(npy).tolist() == [[1.0] * 4] * 3


def test_a_read_only_array_is_read_only_there(npy: Path, pool: shoal.Pool) -> None:
    with pytest.raises(ValueError, match="read-only"):
        pool.apply(lambda a: a.fill(1), (shoal.open_array(npy),))


def test_a_file_is_mapped_once_and_let_go_of(npy: Path) -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as maps:
            return sum(str(npy) in line for line in maps)

    arrays = [shoal.open_array(npy), shoal.open_array(npy), there_and_back(shoal.open_array(npy))[1:]]
    assert mappings() == 1
    del arrays
    gc.collect()
    assert mappings() == 0


def test_results_are_ordinary_arrays(npy: Path) -> None:
    array = shoal.open_array(npy, "r+")
    made = [array + 1, array.copy(), copy.copy(array), copy.deepcopy(array), array[[0, 2]], array.astype("f4")]
    made += [numpy.sort(array), numpy.concatenate([array, array]), array.sum(axis=0), array.T.flatten()]
    assert {type(result) for result in made} == {numpy.ndarray}
    array += 1
    assert type(array) is shoal.FileArray
    assert type(array.T.reshape(2, 6)) is numpy.ndarray
    assert type(array.reshape(4, 3)) is shoal.FileArray


def test_a_directory_that_is_left_does_not_matter(npy: Path, monkeypatch: pytest.MonkeyPatch, pool: shoal.Pool) -> None:
    monkeypatch.chdir(npy.parent)
    array = shoal.open_array("a.npy")
    monkeypatch.chdir("/")
    assert pool.apply(numpy.sum, (array,)) == 66


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_file_that_was_replaced_is_not_taken_for_the_old_one(npy: Path, pool: shoal.Pool) -> None:
    array = shoal.open_array(npy)
    numpy.save(npy.with_name("b.npy"), numpy.zeros((3, 4)))
    os.replace(npy.with_name("b.npy"), npy)
    with pytest.raises(ValueError, match="replaced by another file"):
        pool.apply(numpy.sum, (array,))


def test_a_file_that_was_cut_is_an_error_and_no_death(npy: Path, pool: shoal.Pool) -> None:
    array = shoal.open_array(npy)
    data = pickle.dumps(array)
    os.truncate(npy, 150)
    for load in (pickle.loads, lambda data: pool.apply(pickle.loads, (data,))):
        with pytest.raises(ValueError, match=r"was cut from 224 to 150 bytes"):
            load(data)


def test_a_file_that_has_grown_is_the_same_file(raw: Path, pool: shoal.Pool) -> None:
    array = shoal.open_array(raw, dtype="int16")
    with raw.open("ab") as file:
        file.write(b"\1\0")
    assert pool.apply(numpy.sum, (array,)) == 66
    assert len(shoal.open_array(raw, dtype="int16")) == 13


def test_a_file_that_was_removed_is_not_found(npy: Path, pool: shoal.Pool) -> None:
    array = shoal.open_array(npy)
    npy.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.npy"):
        pool.apply(numpy.sum, (array,))


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        shoal.open_array(tmp_path / "none.npy")
    with pytest.raises(FileNotFoundError):
        shoal.open_array(tmp_path / "none" / "a.npy", "w+", dtype=int, shape=3)


def test_a_file_that_is_no_npy_needs_a_dtype(raw: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.npy file: give the dtype"):
        shoal.open_array(raw)


@pytest.mark.parametrize("size", [0, 3, 6, 9, 50, 127, 200])
def test_a_file_that_is_too_short_is_an_error(npy: Path, size: int) -> None:
    os.truncate(npy, size)
    with pytest.raises(ValueError, match=r"a\.npy"):
        shoal.open_array(npy)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("too short.*need 26 bytes, and it has 24", {"shape": 13}),
        ("too short", {"shape": (3, 4), "offset": 2}),
        ("no whole number of 2-byte items", {"offset": 1}),
        ("from the offset on", {"offset": 100}),
        ("offset must not be negative", {"offset": -1}),
        ("shape must not have negative", {"shape": -1}),
        ('order must be "C" or "F"', {"order": "K"}),
        ('mode must be "r", "r\\+", "w\\+" or "c"', {"mode": "rw"}),
    ],
)
def test_what_can_not_be_is_an_error(raw: Path, message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        shoal.open_array(raw, dtype="int16", **arguments)


def test_objects_can_not_be_mapped(tmp_path: Path) -> None:
    numpy.save(tmp_path / "a.npy", numpy.array([None]))
    with pytest.raises(ValueError, match="objects"):
        shoal.open_array(tmp_path / "a.npy")
    with pytest.raises(TypeError, match="references to Python objects"):
        shoal.open_array(tmp_path / "b.npy", "w+", dtype=object, shape=3)
    assert os.listdir(tmp_path) == ["a.npy"]


def test_what_a_npy_file_says_may_be_checked(npy: Path) -> None:
    assert shoal.open_array(npy, dtype="float64", shape=(3, 4)).shape == (3, 4)
    with pytest.raises(ValueError, match="dtype is int16, but"):
        shoal.open_array(npy, dtype="int16")
    with pytest.raises(ValueError, match=r"shape is \(12,\), but"):
        shoal.open_array(npy, shape=12)
    with pytest.raises(ValueError, match="offset is for raw files"):
        shoal.open_array(npy, offset=128)


def test_a_new_file_needs_a_shape_and_a_dtype(npy: Path) -> None:
    for arguments in ({"dtype": int}, {"shape": 3}):
        with pytest.raises(ValueError, match="needs a dtype and a shape"):
            shoal.open_array(npy, "w+", **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="offset is for raw files"):
        shoal.open_array(npy, "w+", dtype=int, shape=3, offset=4)
    with pytest.raises(ValueError, match="without a byte"):
        shoal.open_array(npy.with_suffix(".raw"), "w+", dtype=int, shape=0)
    assert numpy.load(npy).sum() == 66
    with pytest.raises(TypeError, match=r"made by shoal\.open_array"):
        shoal.FileArray((3,))


def test_a_file_without_permission_says_so(npy: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may do everything")
    npy.chmod(0o444)
    with pytest.raises(PermissionError):
        shoal.open_array(npy, "r+")
