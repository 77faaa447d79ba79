"""Records of workers' loggers reach the handlers of the client."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from tests.conftest import Run

NAME = "tests.logs"
LOG = logging.getLogger(NAME)


class Kept(logging.Handler):
    """Keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@contextlib.contextmanager
def listening() -> Iterator[Kept]:
    """A handler of the logger, which takes what is INFO or more."""
    handler, log = Kept(), logging.getLogger(NAME)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield handler
    finally:
        log.propagate = True
        log.setLevel(logging.NOTSET)
        log.removeHandler(handler)


@pytest.fixture
def kept() -> Iterator[Kept]:
    with listening() as handler:
        yield handler


@pytest.fixture
def pool(kept: Kept) -> Iterator[shoal.Pool]:
    with shoal.Pool(2) as pool:
        yield pool
    pool.join()


def info(text: str, *args: Any, **options: Any) -> None:
    logging.getLogger(NAME).info(text, *args, **options)


def test_records_are_handled_before_the_result_is_there(kept: Kept, pool: shoal.Pool) -> None:
    for i in range(20):
        pool.apply(info, (f"call {i}",))
        assert kept.texts[-1] == f"call {i}"
    pool.map(info, [f"map {i}" for i in range(20)])
    assert len(kept.records) == 40
    for i, _ in enumerate(pool.imap_unordered(info, [f"imap {i}" for i in range(5)])):
        assert len(kept.records) > 40 + i
    pool.submit(info, "future").result()
    assert kept.texts[-1] == "future"


def test_a_record_says_where_it_comes_from(kept: Kept, pool: shoal.Pool) -> None:
    pool.map(info, ["a", "b", "c", "d"], chunksize=1)
    pids = {worker.number: worker.pid for worker in pool.workers}
    for record in kept.records:
        assert record.name == NAME and record.funcName == "info" and record.pathname == __file__
        assert record.process == pids[int(str(record.processName).removeprefix("shoal-worker-"))]
    # Each task has a number of its own.
    assert len({vars(record)["taskId"] for record in kept.records}) == 4


def test_all_records_of_a_task_have_its_id(kept: Kept, pool: shoal.Pool) -> None:
    def work(i: int) -> None:
        info(f"{i} begins")
        info(f"{i} ends")

    pool.map(work, range(10), chunksize=1)
    ids = [(record.getMessage().split()[0], vars(record)["taskId"]) for record in kept.records]
    assert len(ids) == 20 and len(set(ids)) == 10


def test_a_formatter_shows_the_task(kept: Kept, pool: shoal.Pool) -> None:
    formatter = logging.Formatter("%(processName)s %(taskId)s %(message)s", defaults={"taskId": "-"})
    pool.apply(info, ("there",))
    info("here")
    there, here = map(formatter.format, kept.records)
    assert there.startswith("shoal-worker-") and there.endswith(".0 there")
    assert here == "MainProcess - here"


def test_template_and_arguments_stay_apart(kept: Kept, pool: shoal.Pool) -> None:
    pool.apply(info, ("%s of %d", "one", 2))
    pool.apply(info, ("%(part)s", {"part": "a dict"}))
    assert [(record.msg, record.args) for record in kept.records] == [
        ("%s of %d", ("one", 2)),
        ("%(part)s", {"part": "a dict"}),
    ]


def test_arguments_that_are_objects_arrive_as_text(kept: Kept, pool: shoal.Pool) -> None:
    pool.apply(lambda: info("%s", Path("a/b")))
    assert kept.texts == ["a/b"]


def test_an_exception_arrives_with_its_traceback(kept: Kept, pool: shoal.Pool) -> None:
    def fail() -> None:
        try:
            raise OSError("no such luck")
        except OSError:
            logging.getLogger(NAME).exception("failed")

    pool.apply(fail)
    text = logging.Formatter().format(kept.records[0])
    assert text.startswith("failed\nTraceback") and text.endswith("OSError: no such luck")


def test_attributes_that_were_added_arrive_or_are_seen_as_text(kept: Kept, pool: shoal.Pool) -> None:
    pool.apply(
        lambda: info("x", extra={"user": "eve", "path": Path("p"), "lock": __import__("_thread").allocate_lock()})
    )
    added = vars(kept.records[0])
    assert (added["user"], added["path"]) == ("eve", Path("p"))
    assert added["lock"].startswith("<unlocked _thread.lock")


def test_what_nobody_here_would_take_is_not_even_formatted_there(kept: Kept, pool: shoal.Pool) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    def work() -> bool:
        log = logging.getLogger(NAME)
        log.debug("%s", Costly())
        logging.getLogger("tests.unheard").info("%s", Costly())
        return log.isEnabledFor(logging.DEBUG)

    assert not pool.apply(work)
    assert kept.records == []


def test_a_logger_below_has_the_level_of_the_one_above(kept: Kept, pool: shoal.Pool) -> None:
    def work() -> None:
        logging.getLogger(f"{NAME}.below").info("heard")
        logging.getLogger(f"{NAME}.below").debug("not heard")

    pool.apply(work)
    assert kept.texts == ["heard"]


def test_handlers_filters_and_levels_are_those_of_now(kept: Kept, pool: shoal.Pool) -> None:
    log = logging.getLogger(NAME)
    log.setLevel(logging.ERROR)
    pool.apply(info, ("too little now",))
    log.setLevel(logging.INFO)
    other = Kept()
    other.addFilter(lambda record: "yes" in record.getMessage())
    log.addHandler(other)
    try:
        pool.map(info, ["yes", "no"])
    finally:
        log.removeHandler(other)
    assert sorted(kept.texts) == ["no", "yes"] and other.texts == ["yes"]


def test_levels_that_change_later_hold_from_the_next_task_on(kept: Kept, pool: shoal.Pool) -> None:
    log = logging.getLogger(NAME)

    def seen(name: str) -> tuple[int, bool]:
        log = logging.getLogger(name)
        return log.level, log.isEnabledFor(logging.INFO)

    def there(name: str) -> set[tuple[int, bool]]:
        return set(pool.map(seen, [name] * 8, chunksize=1))

    assert there(NAME) == {(logging.INFO, True)}
    log.setLevel(logging.DEBUG)
    assert there(NAME) == {(logging.DEBUG, True)}
    assert there(f"{NAME}.below") == {(logging.NOTSET, True)}
    log.setLevel(logging.NOTSET)
    assert there(NAME) == {(logging.NOTSET, logging.root.isEnabledFor(logging.INFO))}
    logging.disable(logging.CRITICAL)
    try:
        assert there("tests.other") == {(logging.NOTSET, False)}
    finally:
        logging.disable(logging.NOTSET)
    logging.getLogger("tests.other").setLevel(logging.INFO)
    assert there("tests.other") == {(logging.INFO, True)}
    logging.getLogger("tests.other").setLevel(logging.NOTSET)


def test_a_level_that_a_worker_has_set_itself_stays(kept: Kept) -> None:
    def configure() -> None:
        logging.getLogger("tests.own").setLevel(logging.DEBUG)

    with shoal.Pool(1) as pool:
        pool.apply(configure)
        logging.getLogger(NAME).setLevel(logging.DEBUG)
        assert pool.apply(lambda: logging.getLogger("tests.own").level) == logging.DEBUG


def test_records_of_a_worker_that_is_killed_have_arrived(kept: Kept, pool: shoal.Pool) -> None:
    def work() -> None:
        for i in range(100):
            info(f"{i}")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(shoal.WorkerDied):
        pool.apply(work)
    assert kept.texts == [f"{i}" for i in range(100)]


def test_a_long_message_arrives_whole_and_in_its_place(kept: Kept, pool: shoal.Pool) -> None:
    def work(letter: str) -> None:
        for length in (10, 300_000, 10):
            info(letter * length)

    pool.map(work, "ab", chunksize=1)
    for letter in "ab":
        texts = [text for text in kept.texts if text[0] == letter]
        assert [(len(text), set(text)) for text in texts] == [(length, {letter}) for length in (10, 300_000, 10)]


def test_many_records_of_many_workers_arrive_in_the_order_of_each(kept: Kept) -> None:
    def work(worker: int) -> None:
        for i in range(500):
            info("%d %d", worker, i)

    with shoal.Pool(4) as pool:
        pool.map(work, range(4), chunksize=1)
        assert len(kept.records) == 2000
        for worker in range(4):
            own = [record.args for record in kept.records if record.args and record.args[0] == worker]  # type: ignore[index]
            assert own == [(worker, i) for i in range(500)]


def test_a_handler_may_use_the_pool_itself(pool: shoal.Pool) -> None:
    class Using(Kept):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            if record.getMessage() == "ask":
                info(str(pool.apply(abs, (-1,))))

    log, using = logging.getLogger(NAME), Using()
    log.addHandler(using)
    try:
        pool.apply(info, ("ask",))
    finally:
        log.removeHandler(using)
    assert using.texts == ["ask", "1"]


def test_records_of_a_pool_in_a_worker_reach_the_first_client(kept: Kept, pool: shoal.Pool) -> None:
    def outer() -> None:
        with shoal.Pool(1) as inner:
            inner.apply(info, ("from below",))
        info("from above")

    pool.apply(outer)
    assert kept.texts == ["from below", "from above"]
    assert all(str(record.processName).startswith("shoal-worker-") for record in kept.records)


def test_a_worker_with_handlers_of_its_own_uses_them(kept: Kept, tmp_path: Path) -> None:
    path = tmp_path / "worker.log"

    def configure() -> None:
        logging.basicConfig(filename=path, level=logging.INFO, format="%(message)s")

    def work() -> None:
        info("by its own")
        logging.getLogger("tests.other").warning("also")

    with shoal.Pool(1, configure) as pool:
        pool.apply(work)
    assert path.read_text() == "by its own\nalso\n"
    assert kept.records == []


def test_a_library_that_adds_a_handler_that_does_nothing_is_heard(kept: Kept, pool: shoal.Pool) -> None:
    def work() -> None:
        logging.getLogger(NAME).addHandler(logging.NullHandler())
        info("heard")

    pool.apply(work)
    assert kept.texts == ["heard"]


def test_custom_levels_have_the_name_that_they_have_here(kept: Kept, pool: shoal.Pool) -> None:
    logging.addLevelName(25, "NOTICE")
    pool.apply(lambda: logging.getLogger(NAME).log(25, "x"))
    assert kept.records[0].levelname == "NOTICE"


def test_what_can_not_be_formatted_is_reported_as_ever_and_the_task_goes_on(kept: Kept, pool: shoal.Pool) -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("broken")

    def work() -> int:
        info("%s", Broken())
        return 1

    assert pool.apply(work) == 1
    assert kept.records == []


def test_a_record_that_can_not_be_had_here_in_full_is_no_error(kept: Kept, pool: shoal.Pool) -> None:
    class Odd:
        def __reduce__(self) -> Any:
            return pickle.loads, (b"not a pickle",)

        def __repr__(self) -> str:
            return "odd"

    pool.apply(lambda: info("x", extra={"odd": Odd()}))
    assert vars(kept.records[0])["odd"] == "odd"


def test_without_configuration_warnings_are_printed_as_in_one_process(run: Run) -> None:
    done = run("""
        import logging
        import shoal

        def work():
            logging.warning("by the root")
            logging.getLogger("named").error("by name")
            logging.info("not shown")

        with shoal.Pool(1) as pool:
            pool.apply(work)
        # Nothing was configured on the way.
        logging.basicConfig(format="%(message)s")
        logging.warning("here")
    """)
    assert (done.stdout, done.stderr) == ("", "WARNING:root:by the root\nby name\nhere\n")


def test_a_worker_that_imports_logging_late_is_heard(run: Run, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import sys\n"
        "before = 'logging' in sys.modules\n"
        "def work():\n"
        "    import logging\n"
        "    logging.getLogger('late').info('heard')\n"
        "    return before\n"
    )
    done = run("""
        import late
        import shoal

        with shoal.Pool(1) as pool:
            # It was made before anything was configured here.
            import logging
            logging.basicConfig(level="INFO", format="%(name)s %(message)s")
            print(pool.apply(late.work))
    """)
    assert (done.stdout, done.stderr) == ("False\n", "late heard\n")


def test_what_was_logged_by_tasks_that_nobody_waits_for_is_heard_at_the_end(run: Run) -> None:
    done = run("""
        import logging
        import shoal

        logging.basicConfig(level="INFO", format="%(message)s")

        def work():
            logging.info("logged")
            print("printed")
            event.set()
            stays.wait()

        event, stays = shoal.Event(), shoal.Event()
        pool = shoal.Pool(1)
        task = pool.apply_async(work)
        event.wait()
    """)
    assert (done.stdout, done.stderr) == ("printed\n", "logged\n")
