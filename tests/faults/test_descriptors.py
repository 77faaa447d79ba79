"""A client whose table of descriptors is full: what needs one fails and says so, and goes on when there are some."""

from tests.conftest import Run

FILLED = """
import contextlib, errno, os, resource, threading
import shoal

@contextlib.contextmanager
def filled():
    \"\"\"No descriptor is left, and whatever is given back is taken at once.\"\"\"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    hoarded, full, over = [], threading.Event(), threading.Event()

    def hoard():
        while not over.is_set():
            try:
                hoarded.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                full.set()

    thread = threading.Thread(target=hoard)
    thread.start()
    full.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for descriptor in hoarded:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""


def test_a_worker_is_told_that_its_client_can_make_no_memory(run: Run) -> None:
    source = """
def make(count):
    return float(shoal.full(count, 1.0).sum())

with shoal.Pool(1) as pool:
    # What is imported for a call and its error is there by then.
    assert pool.apply(make, (10,)) == 10.0
    with contextlib.suppress(ValueError):
        pool.apply(make, (-1,))
    with filled():
        try:
            pool.apply(make, (3_000_000,))
        except OSError as error:
            print(errno.errorcode[error.errno], error.strerror)
    print(pool.apply(make, (3_000_000,)))
"""
    program = run(FILLED + source)
    assert program.stderr == ""
    first, second = program.stdout.splitlines()
    assert first.startswith("EMFILE the process that makes shared memory for this one could not: Too many open files")
    assert second == "3000000.0"


def test_a_dead_worker_is_replaced_when_there_are_descriptors_again(run: Run) -> None:
    source = """
import signal, time

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def met(ending):
    "What becomes of the tasks. None: this process was away so long that it has tried often enough to have workers."
    told, full = [], 0.0
    with shoal.Pool(2) as pool:
        # What is imported for a call is there by then.
        pool.apply(lambda: None)
        began = time.monotonic()
        try:
            with filled():
                deaths = [pool.apply_async(die) for _ in range(4)]
                # The two workers die, and perhaps one that was quicker than who takes all descriptors.
                while sum(death.ready() for death in deaths) < 2:
                    time.sleep(0.001)
                time.sleep(0.2)
                if ending == "is closed":
                    pool.close()
                elif ending == "is terminated":
                    pool.terminate()
                    pool.join()
            full = time.monotonic() - began
            for death in deaths:
                try:
                    death.get(timeout=100)
                except shoal.WorkerDied:
                    told.append("died")
                except shoal.PoolClosed:
                    told.append("closed")
            if ending == "goes on":
                assert pool.map(abs, range(100)) == list(range(100))
            elif ending == "is closed":
                pool.join()
        except shoal.ShoalError as error:
            if full < 4 or "workers cannot be started" not in str(error):
                raise
            return None
    return told

for ending in ("goes on", "is closed", "is terminated"):
    told = met(ending)
    while told is None:
        told = met(ending)
    print(*told)
"""
    program = run(FILLED + source)
    assert program.stderr == ""
    went_on, closed, terminated = (line.split() for line in program.stdout.splitlines())
    assert went_on == closed == ["died"] * 4
    assert terminated.count("died") >= 2 and terminated.count("died") + terminated.count("closed") == 4


def test_how_a_task_has_failed_is_told_without_a_descriptor(run: Run) -> None:
    source = """
import signal, time
from pathlib import Path

def die(path):
    os.kill(os.getpid(), signal.SIGKILL)

with shoal.Pool(2) as pool:
    results = [pool.apply_async(die, (Path("/a"),)), pool.apply_async(time.sleep, (3600,), timeout=0.2)]
    results += [pool.apply_async(divmod, (1, 0)), pool.apply_async(die, (Path("/b"),))]
    # Nobody asks for them before, so that nothing is imported for it.
    while not all(result.ready() for result in results):
        time.sleep(0.001)
    with filled():
        for result in results:
            try:
                result.get()
            except Exception as error:
                print(type(error).__name__, getattr(error, "task", error))
"""
    program = run(FILLED + source)
    assert program.stderr == ""
    assert program.stdout.splitlines() == [
        "WorkerDied die(PosixPath('/a'))",
        "TaskTimeout sleep(3600)",
        "ZeroDivisionError integer division or modulo by zero",
        "WorkerDied die(PosixPath('/b'))",
    ]


def test_a_worker_that_can_only_be_reached_later_is_stopped_later(run: Run) -> None:
    source = """
import signal, time
import psutil

def freeze(begun):
    begun[0] = 1
    os.kill(os.getpid(), signal.SIGSTOP)

begun = shoal.zeros(1)
with shoal.Pool(1, idle_timeout=0.02) as pool:
    # What an error of this kind needs is there by then.
    with contextlib.suppress(shoal.TaskTimeout):
        pool.apply_async(time.sleep, (3600,), timeout=0.01).get()
    while pool.workers[0].state != "resting":
        time.sleep(0.01)
    zygote = psutil.Process().children()[0].pid
    # The worker is asked for, and comes when there is no descriptor left to know it by.
    os.kill(zygote, signal.SIGSTOP)
    result = pool.apply_async(freeze, (begun,), timeout=0.1)
    with filled():
        os.kill(zygote, signal.SIGCONT)
        while not begun[0]:
            time.sleep(0.01)
        # It is to be stopped in this time, and can't be.
        time.sleep(1)
    try:
        result.get(timeout=100)
    except shoal.TaskTimeout:
        print("stopped")
    print(pool.apply(abs, (-1,)))
"""
    program = run(FILLED + source)
    assert (program.stdout.split(), program.stderr) == (["stopped", "1"], "")


def test_many_workers_that_cannot_be_called_back_at_one_moment_break_no_pool(run: Run) -> None:
    source = """
import time

with shoal.Pool(120, idle_timeout=0.02) as pool:
    # What is imported for a call is there by then.
    pool.apply(abs, (-1,))
    while not all(worker.state == "resting" for worker in pool.workers):
        time.sleep(0.01)
    with filled():
        results = [pool.apply_async(abs, (-number,)) for number in range(120)]
    print(sum(result.get(timeout=100) for result in results))
"""
    program = run(FILLED + source)
    assert (program.stdout, program.stderr) == ("7140\n", "")


def test_workers_of_a_pool_that_could_not_be_made_are_ended(run: Run) -> None:
    source = """
import time
import psutil

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
with shoal.Pool(1) as first:
    first.apply(abs, (-1,))
    before = len(psutil.Process().children(recursive=True))
    # Enough for some workers, and not for all.
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, hard))
    try:
        shoal.Pool(200, initializer=time.sleep, initargs=(3600,))
    except OSError as error:
        print(errno.errorcode[error.errno])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until = time.monotonic() + 60
    while len(psutil.Process().children(recursive=True)) > before and time.monotonic() < until:
        time.sleep(0.01)
    print(len(psutil.Process().children(recursive=True)) - before)
"""
    program = run(FILLED + source)
    assert (program.stdout, program.stderr) == ("EMFILE\n0\n", "")
