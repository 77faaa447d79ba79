"""Pools seen from outside: no process, memory or descriptor outlives its user, and no signal leaves a mess."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

import shoal
from tests.conftest import Run
from tests.pool import tasks
from tests.pool.support import client, descriptors, ended, eventually

BUSY = {
    "idle": "ready.touch(); time.sleep(3600)",
    "waiting": "pool.map(rest, [ready] * 4, chunksize=1)",
    "computing": "pool.map(spin, [ready] * 4, chunksize=1)",
}

CLIENT = """
import time
from pathlib import Path
import shoal

ready = Path("ready")

def rest(ready):
    ready.touch()
    time.sleep(3600)

def spin(ready):
    ready.touch()
    while True:
        pass

pool = shoal.Pool(2)
pool.map(abs, range(100))
"""


@pytest.mark.parametrize("work", BUSY)
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_client(tmp_path: Path, work: str, signum: signal.Signals) -> None:
    with client(CLIENT + BUSY[work], tmp_path) as program:
        family = psutil.Process(program.pid).children(recursive=True)
        assert len(family) >= 2
        program.send_signal(signum)
        assert program.wait() == -signum
        assert eventually(lambda: all(ended(process) for process in family))


INTERRUPTED = {
    "apply": "pool.apply(rest, (ready,))",
    "get": "pool.apply_async(rest, (ready,)).get()",
    "get with a timeout": "pool.apply_async(rest, (ready,)).get(3600)",
    "wait": "pool.apply_async(rest, (ready,)).wait()",
    "map": "pool.map(rest, [ready] * 4, chunksize=1)",
    "imap": "list(pool.imap(rest, [ready] * 4))",
    "join": "pool.apply_async(rest, (ready,)); pool.close(); pool.join()",
}


@pytest.mark.parametrize("call", INTERRUPTED)
def test_an_interrupt_ends_the_wait(tmp_path: Path, call: str) -> None:
    source = CLIENT + f"try:\n    {INTERRUPTED[call]}\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    with client(source, tmp_path) as program:
        family = psutil.Process(program.pid).children(recursive=True)
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=100) == ("interrupted\n", "")
        assert program.returncode == 0
        assert eventually(lambda: all(ended(process) for process in family))


@pytest.mark.parametrize("work", ["waiting", "computing"])
def test_ctrl_c_at_the_terminal_leaves_one_traceback_and_no_process(tmp_path: Path, work: str) -> None:
    """The terminal sends the signal to each process of the group."""
    with client(CLIENT + BUSY[work], tmp_path) as program:
        family = psutil.Process(program.pid).children(recursive=True)
        os.killpg(program.pid, signal.SIGINT)
        output, errors = program.communicate(timeout=100)
        assert program.returncode == -signal.SIGINT
        assert (output, errors.count("Traceback"), errors.count("KeyboardInterrupt")) == ("", 1, 1)
        assert eventually(lambda: all(ended(process) for process in family))


WITHOUT_A_HEIR = {
    "apply": "pool.apply_async(hold); pool.apply(mark, (1,))",
    "map": "pool.map(held, range(8), chunksize=1)",
    "starmap": "pool.starmap(held, [(i,) for i in range(8)], chunksize=2)",
    "map over a generator": "pool.map(held, (i for i in range(8)), chunksize=1, buffersize=8)",
    "map_array": "pool.map_array(held_block, numpy.arange(8), chunks=1, out=numpy.arange(8))",
    "map_array for a new array": "pool.map_array(held_block, numpy.arange(8), chunks=1)",
    "parallel": "shoal.parallel(workers=1, chunks=1)(held_range)(8)",
}


@pytest.mark.parametrize("kind", ["process", "thread"])
@pytest.mark.parametrize("call", WITHOUT_A_HEIR)
def test_what_no_worker_has_begun_is_taken_back_when_who_waits_is_interrupted(run: Run, call: str, kind: str) -> None:
    if kind == "thread" and call.startswith(("map_array", "parallel")):
        pytest.skip("is for processes")
    program = run(
        f"""
        import os, signal, threading, time
        from pathlib import Path
        import numpy, shoal
        from shoal.default import warm_pool

        def wait_for(name):
            while not Path(name).exists():
                time.sleep(0.01)

        def hold():
            Path("begun").touch()
            wait_for("go")

        def mark(item):
            Path(f"mark {{item}}").touch()

        def held(item):
            hold()
            mark(item)

        def held_block(block):
            held(block[0])
            return block

        def held_range(start, stop):
            held(start)

        def interrupt():
            wait_for("begun")
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        with shoal.Pool(1, kind={kind!r}) as pool:
            if {call!r} == "parallel":
                pool = warm_pool(1)
            try:
                {WITHOUT_A_HEIR[call]}
            except KeyboardInterrupt:
                Path("go").touch()
            pool.apply(abs, (-1,))
            print(len(list(Path().glob("mark *"))))
        """
    )
    done = {"apply": 0, "starmap": 2}.get(call, 1)  # a piece that was begun is ended
    assert (program.stdout, program.stderr) == (f"{done}\n", "")


MAPS = {
    "map": "pool.map(work, items)",
    "map with a chunksize": "pool.map(work, items, chunksize=1)",
    "map over a generator": "pool.map(work, (item for item in items))",
    "imap": "list(pool.imap(work, items))",
    "imap with a chunksize": "list(pool.imap(work, items, chunksize=2))",
}


@pytest.mark.parametrize("call", MAPS)
def test_an_interrupt_while_an_item_is_pickled_concerns_who_waits_and_not_the_item(run: Run, call: str) -> None:
    program = run(
        f"""
        import os, shoal, signal, time

        class Item:
            interrupts = True

            def __reduce__(self):
                if Item.interrupts:
                    Item.interrupts = False
                    os.kill(os.getpid(), signal.SIGINT)
                return int, (7,)

        def work(item):
            if item is None:
                time.sleep(3600)
            return item

        with shoal.Pool(2) as pool:
            items = [None, None, Item(), 8]
            try:
                {MAPS[call]}
            except KeyboardInterrupt:
                print("interrupted")
        with shoal.Pool(2) as pool:
            Item.interrupts = True
            stream = pool.imap(work, [6, Item(), 8])
            try:
                list(stream)
            except KeyboardInterrupt:
                print("interrupted")
            print(list(stream)[-2:])
        """
    )
    assert (program.stdout, program.stderr) == ("interrupted\ninterrupted\n[7, 8]\n", "")


@pytest.mark.parametrize(
    "call",
    [
        "pool.apply_async(work, (1,))",
        "pool.map_async(work, [1, 2, 3])",
        "pool.map_async(work, [1, 2, 3], chunksize=1)",
        "pool.map_async(work, [1, 2, 3], chunksize=2)",
        "pool.map_async(work, [1, 2, 3], buffersize=9)",
        "pool.map_async(work, [1, 2, 3], chunksize=2, buffersize=9)",
        "Stream(pool.imap(work, [1, 2, 3]))",
        "Stream(pool.imap(work, [1, 2, 3], chunksize=2))",
    ],
)
def test_an_interrupt_while_a_result_is_unpickled_is_not_the_result(run: Run, call: str) -> None:
    program = run(
        f"""
        import os, shoal, signal

        def answer(item):
            if os.environ.pop("INTERRUPTS", None):
                os.kill(os.getpid(), signal.SIGINT)
            return 10 * item

        class Result:
            def __init__(self, item):
                self.item = item

            def __reduce__(self):
                return answer, (self.item,)

        def work(item):
            return Result(item)

        class Stream:
            def __init__(self, results):
                self.results, self.taken = results, []

            def get(self):
                self.taken.extend(self.results)
                return self.taken

        with shoal.Pool(2) as pool:
            result = {call}
            os.environ["INTERRUPTS"] = "1"
            try:
                result.get()
            except KeyboardInterrupt:
                print("interrupted")
            print(result.get())
        """
    )
    expected = "10" if "apply" in call else "[10, 20, 30]"
    assert (program.stdout, program.stderr) == (f"interrupted\n{expected}\n", "")


def test_a_pool_goes_on_after_an_interrupt(run: Run) -> None:
    program = run(
        """
        import os, shoal, signal, time

        ready, noticed = shoal.Event(), shoal.Event()

        def interrupt(client):
            ready.wait(40)
            os.kill(client, signal.SIGINT)
            noticed.wait(40)
            return "done"

        with shoal.Pool(2) as pool:
            result = pool.apply_async(interrupt, (os.getpid(),))
            try:
                ready.set()
                result.get()
            except KeyboardInterrupt:
                print("interrupted")
            noticed.set()
            print(result.get(), pool.map(abs, [-1, -2]))
        """
    )
    assert (program.stdout, program.stderr) == ("interrupted\ndone [1, 2]\n", "")


@pytest.mark.parametrize(
    ("ending", "returncode"), [("", 0), ("raise SystemExit(5)", 5), ("raise LookupError('here')", 1)]
)
def test_a_program_ends_with_work_in_flight(run: Run, ending: str, returncode: int) -> None:
    program = run(
        "import shoal, time\n"
        "pool = shoal.Pool(2)\n"
        "stream = pool.imap(abs, range(10**9))\n"
        "next(stream)\n"
        "results = [pool.apply_async(time.sleep, (3600,)) for _ in range(10)]\n" + ending
    )
    assert program.returncode == returncode
    assert re.findall(r"^\w*(?:Error|Warning).*", program.stderr, re.M) == (
        ["LookupError: here"] if returncode == 1 else []
    )


def test_what_tasks_print_appears(run: Run) -> None:
    program = run(
        """
        import shoal
        pool = shoal.Pool(2)
        # In one write each: unbuffered, print would write the end of the line by itself.
        pool.map(lambda word: print(word + "\\n", end=""), ["one", "two", "three"])
        pool.close()
        pool.join()
        """
    )
    assert (sorted(program.stdout.split()), program.stderr) == (["one", "three", "two"], "")


def test_nothing_is_mapped_from_dev_shm(run: Run) -> None:
    program = run(
        """
        import shoal
        from pathlib import Path
        with shoal.Pool(2) as pool:
            pool.map(len, [bytes(1_000_000)] * 4)
            for process in ["self", *(worker.pid for worker in pool.workers)]:
                print("/dev/shm" in Path(f"/proc/{process}/maps").read_text())
        """
    )
    assert (program.stdout, program.stderr) == ("False\nFalse\nFalse\n", "")


def use_a_pool() -> None:
    with shoal.Pool(2) as pool:
        pool.map(tasks.same, [bytes(100_000)] * 4)
    pool.join()


def test_pools_leave_no_descriptor_open() -> None:
    use_a_pool()
    before = descriptors()
    for _ in range(30):
        use_a_pool()
    assert eventually(lambda: descriptors() <= before)


def test_pools_leave_no_process_and_no_thread() -> None:
    use_a_pool()
    me = psutil.Process()
    processes, threads = len(me.children(recursive=True)), me.num_threads()
    for _ in range(5):
        use_a_pool()
    assert eventually(lambda: len(me.children(recursive=True)) <= processes)
    assert eventually(lambda: me.num_threads() <= threads)


def test_pools_leave_no_lease() -> None:
    # Other tests of this process may have left arrays that are on their way to somewhere.
    before = shoal.memory().leases
    use_a_pool()
    assert eventually(lambda: shoal.memory().leases <= before)


def test_an_idle_pool_uses_no_cpu(pool: shoal.Pool) -> None:
    pool.map(tasks.square, range(100))
    workers = [psutil.Process(worker.pid) for worker in pool.workers]

    def used() -> float:
        times = [process.cpu_times() for process in (psutil.Process(), *workers)]
        return sum(time.user + time.system for time in times)

    def spends_little() -> bool:
        before, began = used(), time.monotonic()
        time.sleep(1)
        return used() - before < 0.1 * (time.monotonic() - began)

    # What came before may take its time to end on a busy machine.
    assert eventually(spends_little)
    assert pool.apply(tasks.square, (3,)) == 9


def test_a_forked_child_of_the_client_is_told_that_its_pool_is_closed(run: Run) -> None:
    program = run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12+ warns of any fork with threads
        import os, shoal, signal
        pool = shoal.Pool(2)
        pool.map(abs, range(10))
        child = os.fork()
        if not child:
            signal.alarm(40)
            try:
                pool.apply(abs, (-1,))
            except shoal.PoolClosed:
                os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pool.apply(abs, (-1,)))
        pool.terminate()
        """
    )
    assert (program.stdout, program.stderr) == ("7 1\n", "")


def test_a_task_may_start_a_program_of_its_own(pool: shoal.Pool) -> None:
    assert pool.apply(subprocess.check_output, (["echo", "hello"],)) == b"hello\n"
