"""Open files: they are opened again where they arrive, at the same place, or refused."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import pytest

import shoal
from tests.pool import tasks

TEXT = "one\r\ntwo\r\nthree\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_bytes(TEXT.encode())
    return path


def rest(file: IO[Any]) -> Any:
    return file.read()


@pytest.mark.parametrize("mode", ["r", "rb"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_it_is_read_on_from_where_it_was_and_stays_where_it_was(
    pool: shoal.Pool, path: Path, mode: str, buffering: int
) -> None:
    with open(path, mode, buffering if mode == "rb" else -1) as file:
        file.readline()
        there = pool.apply(rest, (file,))
        assert there == file.read()
        assert pool.apply(rest, (file,)) == there[:0]


@pytest.mark.parametrize("newline", [None, "", "\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_text_is_decoded_as_it_was_here(pool: shoal.Pool, tmp_path: Path, newline: str | None, encoding: str) -> None:
    path = tmp_path / "text"
    path.write_text("drei Füße\r\nund noch einer\r\n", encoding, newline="")
    with open(path, encoding=encoding, newline=newline, errors="replace") as file:
        file.readline()
        there = pool.apply(lambda f: (f.encoding, f.errors, f.read()), (file,))
        assert there == (encoding, "replace", file.read())


def test_each_task_has_a_position_of_its_own(pool: shoal.Pool, path: Path) -> None:
    with open(path, "rb") as file:
        assert pool.starmap(lambda f, n: f.read(n), [(file, 3), (file, 3), (file, 3)], 1) == [b"one"] * 3


def test_a_change_of_directory_or_name_does_no_harm(
    pool: shoal.Pool, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open("lines.txt", "rb") as file:
        monkeypatch.chdir("/")
        assert pool.apply(rest, (file,)) == TEXT.encode()
        path.rename(tmp_path / "other.txt")
        assert pool.apply(rest, (file,)) == TEXT.encode()


def test_a_closed_file_arrives_closed(pool: shoal.Pool, path: Path) -> None:
    with open(path) as text, open(path, "rb") as raw:
        pass
    assert pool.apply(lambda *files: [file.closed for file in files], (text, raw)) == [True, True]


def test_it_is_nobodys_to_close_in_the_worker(pool: shoal.Pool, path: Path) -> None:
    def leave(file: IO[str]) -> int:
        file.read(1)
        return len(os.listdir("/proc/self/fd"))

    with open(path) as file:
        counts = [pool.apply(leave, (file,)) for _ in range(20)]
    assert max(counts) - min(counts) <= 1


def test_a_standard_stream_is_that_of_the_worker(pool: shoal.Pool) -> None:
    def which(stream: Any) -> bool:
        return stream is sys.stdout

    assert pool.apply(which, (sys.stdout,))
    assert not pool.apply(which, (sys.stderr,))


def test_what_is_open_for_writing_is_refused(pool: shoal.Pool, tmp_path: Path) -> None:
    for mode in ("w", "a", "r+b", "wb"):
        with (
            open(tmp_path / "out", mode) as file,
            pytest.raises(shoal.SerializationError, match=r"\.content: .* open for writing: open it in the task"),
        ):
            pool.apply(tasks.same, (tasks.Holder(file),))


def test_a_file_that_was_deleted_or_replaced_is_refused_at_once(pool: shoal.Pool, path: Path) -> None:
    with open(path) as file:
        path.unlink()
        with pytest.raises(shoal.SerializationError, match="was deleted"):
            pool.apply(rest, (file,))
        path.write_text("another")
        with pytest.raises(shoal.SerializationError, match="was deleted"):
            pool.apply(rest, (file,))


def test_one_that_is_replaced_on_the_way_is_an_error_of_the_task(path: Path, tmp_path: Path) -> None:
    from shoal.serialize import dumps, loads

    with open(path) as file:
        sent = dumps(file)
    (tmp_path / "new").write_text("another")
    os.replace(tmp_path / "new", path)
    with pytest.raises(FileNotFoundError, match="replaced by another file"):
        loads(sent)


def test_what_is_no_file_on_disk_is_refused(pool: shoal.Pool) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with open(reader) as file, pytest.raises(shoal.SerializationError, match="no file on disk"):
        pool.apply(rest, (file,))
    with open("/dev/null") as file, pytest.raises(shoal.SerializationError, match="no file on disk"):
        pool.apply(rest, (file,))


def test_a_text_that_is_being_iterated_over_is_refused(pool: shoal.Pool, path: Path) -> None:
    with open(path) as file:
        next(file)
        with pytest.raises(shoal.SerializationError, match="nobody knows where it is"):
            pool.apply(rest, (file,))


def test_files_in_memory_travel_as_ever(pool: shoal.Pool) -> None:
    text = io.StringIO("abc")
    text.read(1)
    assert pool.apply(rest, (text,)) == "bc"
    assert pool.apply(rest, (io.BytesIO(b"abc"),)) == b"abc"


def test_a_temporary_file_is_not_deleted_by_a_worker(pool: shoal.Pool) -> None:
    with tempfile.NamedTemporaryFile() as file:
        with pytest.raises(shoal.SerializationError, match="open for writing"):
            pool.apply(rest, (file,))
        assert os.path.exists(file.name)
