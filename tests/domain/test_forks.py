"""The child of a fork holds what it inherited, in its own right: its parent may drop it, or end, in whatever way."""

import multiprocessing
import os
import signal
import threading
from typing import Any

import pytest

import shoal
from tests.conftest import Run
from tests.pool.support import eventually

# From Python 3.12 on, a fork of a process with threads is warned of, whatever they are.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

# What the programs below begin with: `forked` starts a child that does something and ends.
PRELUDE = """
import warnings; warnings.simplefilter("ignore", DeprecationWarning)
import os, pickle, signal, subprocess, sys, threading, time, numpy as np, shoal

def forked(action):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            sys.stdout.flush()
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return pid

def ends_well(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def until(condition):
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, "in vain"
        time.sleep(0.005)

def elsewhere(program, *things):
    "What a fresh process prints that is given these things, pickled."
    program = f"import pickle, sys; things = pickle.load(sys.stdin.buffer)\\n{program}"
    return subprocess.run([sys.executable, "-c", program], input=pickle.dumps(things), stdout=subprocess.PIPE).stdout
"""


def output(run: Run, source: str) -> str:
    program = run(PRELUDE + source)
    assert program.stderr == ""
    return program.stdout


def test_what_the_parent_drops_the_child_keeps(run: Run) -> None:
    source = """
array, dropped = shoal.full(100_000, 7.0), shoal.Counter()
def look():
    until(lambda: dropped.value)
    print(float(array.sum()))
child = forked(look)
del array
others = [shoal.full(100_000, 9.0) for _ in range(5)]
dropped.add()
ends_well(child)
"""
    assert output(run, source) == "700000.0\n"


def test_what_the_child_drops_the_parent_keeps(run: Run) -> None:
    source = """
array = shoal.full(100_000, 7.0)
def drop():
    global array
    del array
ends_well(forked(drop))
others = [shoal.full(100_000, 9.0) for _ in range(5)]
print(float(array.sum()))
"""
    assert output(run, source) == "700000.0\n"


def test_what_both_have_dropped_is_free(run: Run) -> None:
    source = """
array, dropped = shoal.full(10_000_000, 7.0), shoal.Counter()
def drop():
    global array
    until(lambda: dropped.value == 1)
    del array
    dropped.add()
    until(lambda: dropped.value == 3)
used = shoal.memory().used
child = forked(drop)
del array
print(shoal.memory().used == used)
dropped.add()
until(lambda: dropped.value == 2)
until(lambda: shoal.memory().used < used - 50_000_000)
dropped.add()
ends_well(child)
"""
    assert output(run, source) == "True\n"


def test_what_a_child_held_is_free_when_it_ends_in_whatever_way(run: Run) -> None:
    source = """
array, there = shoal.full(10_000_000, 7.0), shoal.Counter()
used = shoal.memory().used
def stay():
    there.add()
    time.sleep(100)
child = forked(stay)
del array
until(lambda: there.value)
assert shoal.memory().used == used
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
until(lambda: shoal.memory().used < used - 50_000_000)
"""
    assert output(run, source) == ""


def test_arrays_counters_and_locks_work_on_when_the_parent_was_killed(run: Run) -> None:
    source = """
array, counter, lock = shoal.full(100_000, 7.0), shoal.Counter(3), shoal.Lock()
parent = os.getpid()
def go_on():
    until(lambda: os.getppid() != parent)
    with lock:
        array[:] += 1
        counter.add(2)
    other = shoal.full(1000, 1.0)
    print(float(array.sum()), counter.value, lock.locked(), float(other.sum()))
forked(go_on)
os.kill(parent, signal.SIGKILL)
"""
    assert output(run, source) == "800000.0 5 False 1000.0\n"


def test_a_lock_that_a_child_was_killed_in_passes_on(run: Run) -> None:
    source = """
lock, taken = shoal.Lock(), shoal.Counter()
def take():
    lock.acquire()
    taken.add()
    time.sleep(100)
for _ in range(3):
    before = taken.value
    child = forked(take)
    until(lambda: taken.value > before)
    assert not lock.acquire(block=False)
    os.kill(child, signal.SIGKILL)
    print(lock.acquire(timeout=100), lock.abandoned)
    lock.release()
    os.waitpid(child, 0)
"""
    assert output(run, source) == "True True\n" * 3


def test_a_lock_that_a_child_is_in_is_not_given_away_when_its_parent_is_killed(run: Run) -> None:
    source = """
lock, taken, ended = shoal.Lock(), shoal.Counter(), shoal.Counter()
def parent():
    def take():
        lock.acquire()
        taken.add(os.getpid())
        time.sleep(100)
    forked(take)
    until(lambda: taken.value)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(forked(parent), 0)
print(lock.acquire(timeout=0.5))
os.kill(taken.value, signal.SIGKILL)
print(lock.acquire(timeout=100), lock.abandoned)
"""
    assert output(run, source) == "False\nTrue True\n"


def test_what_a_child_pickles_others_resolve(run: Run) -> None:
    source = """
array = shoal.full(4, 7.0)
def send():
    mine = shoal.full(4, 1.0)
    print(pickle.loads(pickle.dumps(array)).tolist())
    print(elsewhere("print(*(float(thing.sum()) for thing in things))", array, mine).decode(), end="")
ends_well(forked(send))
"""
    assert output(run, source) == "[7.0, 7.0, 7.0, 7.0]\n28.0 4.0\n"


def test_a_child_unpickles_what_its_parent_made_later(run: Run) -> None:
    source = """
first = shoal.Counter()
reader, writer = os.pipe()
def receive():
    array = pickle.loads(os.read(reader, 10_000))
    array += 1
    first.add()
child = forked(receive)
array = shoal.zeros(1000)
os.write(writer, pickle.dumps(array))
ends_well(child)
print(float(array.sum()), first.value)
"""
    assert output(run, source) == "1000.0 1\n"


def test_a_child_of_a_child_holds_as_well(run: Run) -> None:
    source = """
array, lock = shoal.full(100_000, 7.0), shoal.Lock()
pids = shoal.zeros(3, int)
pids[0] = os.getpid()
def child():
    pids[1] = os.getpid()
    def grandchild():
        pids[2] = os.getpid()
        until(lambda: os.getppid() not in pids.tolist())
        with lock:
            print(float(array.sum()))
    forked(grandchild)
    until(lambda: pids[2])
child = forked(child)
until(lambda: pids[2])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert output(run, source) == "700000.0\n"


def test_a_fork_of_a_guest_holds_as_well(run: Run) -> None:
    source = """
array, lock, done = shoal.full(100_000, 7.0), shoal.Lock(), shoal.Counter()
program = '''
import os, signal, sys
array, lock, done = things
parent = os.getpid()
if os.fork() == 0:
    del things
    while os.getppid() == parent: pass
    with lock:
        array += 1
        done.add()
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
'''
elsewhere(program, array, lock, done)
until(lambda: done.value)
print(float(array.sum()))
"""
    assert output(run, source) == "800000.0\n"


def test_a_fork_of_a_worker_holds_as_well(run: Run) -> None:
    source = """
array, lock, done = shoal.full(100_000, 7.0), shoal.Lock(), shoal.Counter()
def work():
    mine = shoal.full(1000, 1.0)
    worker = os.getpid()
    def go_on():
        until(lambda: os.getppid() != worker)
        with lock:
            array[:] += 1
            done.add(int(mine.sum()))
    forked(go_on)
    os.kill(worker, signal.SIGKILL)
with shoal.Pool(1) as pool:
    try:
        pool.apply(work)
    except shoal.WorkerDied:
        until(lambda: done.value)
        print(float(array.sum()), done.value)
"""
    assert output(run, source) == "800000.0 1000\n"


def test_the_pool_of_the_parent_stays_closed_and_one_of_its_own_works(run: Run) -> None:
    source = """
array = shoal.zeros(10)
pool = shoal.Pool(1)
def child():
    try:
        pool.apply(abs, (1,))
    except shoal.PoolClosed:
        print("closed")
    def add(a):
        a += 1
    with shoal.Pool(1) as mine:
        mine.apply(add, (array,))
ends_well(forked(child))
print(float(array.sum()), pool.apply(abs, (-3,)))
"""
    assert output(run, source) == "closed\n10.0 3\n"


def test_forks_beside_busy_threads_do_not_hang(run: Run) -> None:
    source = """
lock, total, ending = shoal.Lock(), shoal.Counter(), False
kept = [shoal.zeros(10) for _ in range(100)]
def busy():
    while not ending:
        a = shoal.zeros(50_000)
        with lock:
            total.add()
        pickle.loads(pickle.dumps(a))
        kept[total.value % 100] = a
threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads: thread.start()
def use():
    # The lock may be its parent's just now, which the parent is to let go of.
    with lock:
        total.add()
    for array in kept:
        assert not array.any()
    kept.clear()
    assert shoal.ones(100_000).all()
for _ in range(60):
    ends_well(forked(use))
ending = True
for thread in threads: thread.join()
"""
    assert output(run, source) == ""


def test_numbers_of_children_that_have_ended_are_given_out_again(run: Run) -> None:
    source = """
counter = shoal.Counter()
for _ in range(700):
    ends_well(forked(counter.add))
print(counter.value)
"""
    assert output(run, source) == "700\n"


def test_a_child_that_is_killed_before_it_did_anything_holds_nothing_for_long(run: Run) -> None:
    source = """
array = shoal.full(10_000_000, 7.0)
used = shoal.memory().used
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
del array
until(lambda: shoal.memory().used < used - 50_000_000)
"""
    assert output(run, source) == ""


def test_who_holds_nothing_forks_without_a_number(run: Run) -> None:
    source = """
shoal.memory()
children = []
for _ in range(600):
    child = os.fork()
    if child == 0:
        signal.pause()
    children.append(child)
with shoal.Pool(1) as pool:
    print(pool.apply(abs, (-1,)))
for child in children:
    os.kill(child, signal.SIGKILL)
"""
    assert output(run, source) == "1\n"


def test_processes_of_multiprocessing_take_turns_with_their_parent() -> None:
    lock, total = shoal.Lock(), shoal.zeros(1, "int64")

    def add(times: int) -> None:
        for _ in range(times):
            with lock:
                total[0] += 1

    context: Any = multiprocessing.get_context("fork")
    children = [context.Process(target=add, args=(1000,)) for _ in range(3)]
    for child in children:
        child.start()
    add(1000)
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert total[0] == 4000


def test_a_waiting_parent_gets_the_lock_of_a_killed_child() -> None:
    lock, taken = shoal.Lock(), shoal.Counter()

    def take() -> None:
        lock.acquire()
        taken.add()
        threading.Event().wait()

    context: Any = multiprocessing.get_context("fork")
    child = context.Process(target=take)
    child.start()
    assert eventually(lambda: taken.value)
    got: list[bool] = []
    waiter = threading.Thread(target=lambda: got.append(lock.acquire(timeout=150)))
    waiter.start()
    os.kill(child.pid, signal.SIGKILL)
    waiter.join()
    child.join()
    assert got == [True] and lock.abandoned


def test_arguments_of_tasks_under_way_are_not_inherited(run: Run) -> None:
    source = """
there = shoal.Counter()
def wait(array):
    there.add()
    until(lambda: there.value == 2)
    return 0
with shoal.Pool(1) as pool:
    pool.apply(abs, (-1,))
    used = shoal.memory().used
    result = pool.apply_async(wait, (np.ones(10_000_000),))
    until(lambda: there.value == 1)
    child = forked(lambda: time.sleep(100))
    there.add()
    result.get()
    until(lambda: shoal.memory().used < used + 50_000_000)
    os.kill(child, signal.SIGKILL)
"""
    assert output(run, source) == ""


def test_what_lies_in_a_queue_is_there_when_the_parent_was_killed(run: Run) -> None:
    source = """
queue, parent = shoal.Queue(), os.getpid()
queue.put(shoal.full(1000, 7.0))
queue.put(np.ones(100_000))
def child():
    until(lambda: os.getppid() != parent)
    queue.put(3)
    print(float(queue.get().sum()), float(queue.get().sum()), queue.get())
forked(child)
os.kill(parent, signal.SIGKILL)
"""
    assert output(run, source) == "7000.0 100000.0 3\n"


def test_parent_and_children_put_and_get(run: Run) -> None:
    source = """
queue, sums = shoal.Queue(10), shoal.Queue()
def put():
    for n in range(500):
        queue.put(np.full(5000, n) if n % 10 == 0 else n)
def get():
    sums.put(sum(int(np.max(queue.get())) for _ in range(500)))
children = [forked(put), forked(put), forked(get)]
get()
for child in children: ends_well(child)
print(sums.get() + sums.get() == 2 * sum(range(500)), queue.empty())
"""
    assert output(run, source) == "True True\n"


def test_what_lies_in_a_queue_is_free_when_it_was_taken_though_a_fork_lives_on(run: Run) -> None:
    source = """
queue, taken = shoal.Queue(), shoal.Counter()
queue.put(shoal.full(10_000_000, 7.0))
used = shoal.memory().used
child = forked(lambda: time.sleep(100))
queue.get()
until(lambda: shoal.memory().used < used - 50_000_000)
os.kill(child, signal.SIGKILL)
"""
    assert output(run, source) == ""
