"""`Pool.submit`: real futures of the standard library, which wait for nobody's thread."""

import asyncio
import concurrent.futures
import gc
import threading
import weakref

import pytest

import shoal
from shoal.futures import Future
from tests.executor.support import fail, occupy
from tests.pool.support import eventually


def is_full(future: concurrent.futures.Future[object]) -> bool:
    return "_condition" in vars(future)


def test_a_future_is_one_of_the_standard_library(pool):
    future = pool.submit(pow, 2, 10)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 1024
    assert future.exception() is None
    assert future.done() and not future.running() and not future.cancelled() and not future.cancel()


def test_keywords_travel_even_those_that_submit_uses_itself(pool):
    assert pool.submit(dict, fn=1, self=2).result() == {"fn": 1, "self": 2}


def test_an_exception_is_raised_with_the_workers_traceback(pool):
    future = pool.submit(fail, "nowhere")
    with pytest.raises(LookupError, match="nowhere") as raised:
        future.result()
    assert "in fail" in str(raised.value.__cause__)
    assert isinstance(future.exception(), LookupError)


def test_a_lambda_and_a_closure_can_be_submitted(pool):
    factor = 3
    assert pool.submit(lambda x: factor * x, 14).result() == 42


def test_what_can_not_be_sent_is_an_error_at_once(pool):
    with pytest.raises(shoal.SerializationError, match="argument 0"):
        pool.submit(print, threading.current_thread())
    with pytest.raises(TypeError, match="callable"):
        pool.submit(3)


def test_a_closed_pool_refuses_as_a_pool_and_as_an_executor_would(pool):
    pool.close()
    with pytest.raises(shoal.PoolClosed) as raised:
        pool.submit(pow, 2, 2)
    assert isinstance(raised.value, ValueError) and isinstance(raised.value, RuntimeError)


def test_a_result_that_is_late_raises_a_time_out_and_can_be_asked_for_again(pool, gate):
    future = pool.submit(gate.wait, "late")
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(timeout=0.01)
    assert not future.done()
    gate.open()
    assert future.result(timeout=150) == "late"


def test_a_time_out_that_the_task_raised_is_its_exception(pool):
    def late():
        raise TimeoutError("of the task")

    with pytest.raises(TimeoutError, match="of the task"):
        pool.submit(late).result(timeout=150)


def test_a_worker_that_dies_fails_its_future_alone(pool):
    import os

    death, after = pool.submit(os._exit, 3), pool.submit(pow, 2, 3)
    with pytest.raises(shoal.WorkerDied) as raised:
        death.result()
    assert raised.value.exitcode == 3
    assert isinstance(raised.value, concurrent.futures.process.BrokenProcessPool)
    assert after.result() == 8


def test_a_queued_task_is_cancelled_and_never_runs(pool, gate, tmp_path):
    held = occupy(pool, gate)
    trace = tmp_path / "trace"
    future = pool.submit(trace.touch)
    assert future.cancel() and future.cancel()
    assert future.cancelled() and future.done() and not future.running()
    for ask in (future.result, future.exception):
        with pytest.raises(concurrent.futures.CancelledError):
            ask()
    gate.open()
    concurrent.futures.wait(held)
    pool.close()
    pool.join()
    assert not trace.exists()


def test_a_task_that_runs_is_not_cancelled(pool, gate):
    (running, _) = occupy(pool, gate)
    assert running.running() and not running.cancel() and not running.cancelled()
    gate.open()
    assert running.result() == 0


def test_a_cancelled_error_that_the_task_raised_is_its_exception(pool):
    def cancelled():
        raise concurrent.futures.CancelledError("of the task")

    future = pool.submit(cancelled)
    with pytest.raises(concurrent.futures.CancelledError, match="of the task"):
        future.result()
    assert not future.cancelled()
    done, _ = concurrent.futures.wait([future])
    assert done == {future} and isinstance(future.exception(), concurrent.futures.CancelledError)


def test_many_thousands_behind_the_ring_are_cancelled(pool, gate):
    held = occupy(pool, gate)
    futures = [pool.submit(abs, -n) for n in range(5000)]
    kept = futures[::100]
    assert all(future.cancel() for n, future in enumerate(futures) if n % 100)
    gate.open()
    assert [future.result() for future in kept] == list(range(0, 5000, 100))
    assert [future.result() for future in held] == [0, 1]


def test_callbacks_are_called_in_order_with_the_future(pool, gate):
    called = []
    held = occupy(pool, gate)
    future = pool.submit(pow, 2, 5)
    future.add_done_callback(lambda f: called.append(("first", f.result(), threading.current_thread())))
    future.add_done_callback(lambda f: called.append(("second", f.result(), threading.current_thread())))
    assert not called
    gate.open()
    assert eventually(lambda: len(called) == 2)
    assert [name for name, _, _ in called] == ["first", "second"]
    assert all(value == 32 and thread is not threading.current_thread() for _, value, thread in called)
    concurrent.futures.wait(held)
    # Of one that has ended: at once, here.
    future.add_done_callback(lambda f: called.append(("third", f.result(), threading.current_thread())))
    assert called[-1] == ("third", 32, threading.current_thread())


def test_a_callback_is_called_though_nobody_keeps_the_future(pool, gate):
    called = []
    pool.submit(gate.wait, "kept").add_done_callback(lambda f: called.append(f.result()))
    gc.collect()
    gate.open()
    assert eventually(lambda: called == ["kept"])


def test_a_callback_that_raises_is_logged_and_stops_nothing(pool, gate, caplog):
    called = []
    future = pool.submit(gate.wait)
    future.add_done_callback(lambda f: fail("in a callback"))
    future.add_done_callback(called.append)
    gate.open()
    assert eventually(lambda: called == [future])
    assert "in a callback" in caplog.text


def test_cancelling_calls_the_callbacks_and_tells_who_waits(pool, gate):
    occupy(pool, gate)
    called = []
    future, other = pool.submit(abs, -1), pool.submit(abs, -2)
    future.add_done_callback(called.append)
    waiting = threading.Thread(target=lambda: called.append(concurrent.futures.wait([future, other], 50)))
    waiting.start()
    assert eventually(lambda: is_full(other))
    assert future.cancel() and other.cancel()
    waiting.join()
    assert called[0] is future and called[1].done == {future, other}


def test_wait_and_as_completed_work(pool, gate):
    late = pool.submit(gate.wait, "late")
    early = [pool.submit(pow, n, 2) for n in range(10)]
    done, pending = concurrent.futures.wait([*early, late], return_when=concurrent.futures.FIRST_COMPLETED)
    assert done and late in pending
    assert concurrent.futures.wait(early).not_done == set()
    come = concurrent.futures.as_completed([late, *early])
    assert {next(come) for _ in early} == set(early)
    gate.open()
    assert next(come) is late
    failed = pool.submit(fail, "first")
    done, _ = concurrent.futures.wait([failed], return_when=concurrent.futures.FIRST_EXCEPTION)
    assert done == {failed}


def test_a_thread_may_wait_for_the_result_while_another_adds_a_callback(pool, gate):
    future = pool.submit(gate.wait, "both")
    got = []
    waiting = [threading.Thread(target=lambda: got.append(future.result())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    future.add_done_callback(lambda f: got.append(f.result()))
    gate.open()
    for thread in waiting:
        thread.join()
    assert eventually(lambda: got == ["both"] * 4)


def test_nobody_else_is_needed_to_wait_for_a_result(pool):
    before = threading.active_count()
    futures = [pool.submit(pow, n, 2) for n in range(100)]
    assert [future.result() for future in futures] == [n * n for n in range(100)]
    # Threads of pools of other tests may be ending.
    assert threading.active_count() <= before and not any(map(is_full, futures))


def test_what_a_future_looks_like(pool, gate):
    (running, _) = occupy(pool, gate)
    queued, cancelled = pool.submit(pow, 2, 2), pool.submit(pow, 2, 2)
    cancelled.cancel()
    assert "state=running" in repr(running)
    assert "state=pending" in repr(queued)
    assert "state=cancelled" in repr(cancelled)
    assert not is_full(queued)
    gate.open()
    queued.result()
    assert "state=finished returned int" in repr(queued)
    failed = pool.submit(fail, "x")
    failed.exception()
    assert "state=finished raised LookupError" in repr(failed)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = queued.nonsense


def test_asyncio_waits_for_a_future_and_cancels_it(pool, gate):
    async def main() -> object:
        value = await asyncio.wrap_future(pool.submit(pow, 2, 6))
        held = [asyncio.wrap_future(pool.submit(gate.wait, n)) for n in range(2)]
        queued = pool.submit(pow, 2, 7)
        waiting = asyncio.wrap_future(queued)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while not queued.cancelled():
            await asyncio.sleep(0)
        gate.open()
        return value, await asyncio.gather(*held)

    assert asyncio.run(main()) == (64, [0, 1])


def test_futures_of_a_terminated_pool_say_so(pool, gate):
    held = occupy(pool, gate)
    queued = pool.submit(pow, 2, 2)
    called = []
    queued.add_done_callback(called.append)
    pool.terminate()
    for future in (*held, queued):
        with pytest.raises(shoal.PoolClosed, match="terminated"):
            future.result()
        assert not future.cancelled()
    assert eventually(lambda: called == [queued])


def test_a_future_keeps_neither_pool_nor_result_longer_than_itself(pool):
    future = pool.submit(set, (1, 2))
    concurrent.futures.wait([future])
    value = weakref.ref(future.result())
    assert value() == {1, 2}
    gone = weakref.ref(future)
    del future
    assert eventually(lambda: gc.collect() is not None and gone() is None and value() is None)


class Interrupted:
    """A task whose result was about to be unpickled when Ctrl-C came."""

    def __init__(self) -> None:
        self.asked = 0

    def get(self, timeout: float | None = None) -> int:
        self.asked += 1
        if self.asked == 1:
            raise KeyboardInterrupt
        return 4

    def wait(self, timeout: float | None = None) -> None: ...
    def ready(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def watch(self, inbox: object, tag: int) -> bool:
        return False


ASK = {
    "exception": lambda future: future.exception(),
    "wait": lambda future: concurrent.futures.wait([future]),
    "result": lambda future: future.result(),
}


@pytest.mark.parametrize("ask", ASK)
def test_ctrl_c_while_a_result_is_unpickled_is_not_the_tasks(pool, ask):
    future = Future(Interrupted(), pool._threads())
    with pytest.raises(KeyboardInterrupt):
        ASK[ask](future)
    assert future.exception() is None
    assert future.result() == 4


def test_a_keyboard_interrupt_of_the_task_is_its_exception(pool):
    def interrupted():
        raise KeyboardInterrupt("of the task")

    with shoal.Executor(1, kind="thread") as executor:
        for future in (pool.submit(interrupted), executor.submit(interrupted)):
            assert repr(future.exception()) == "KeyboardInterrupt('of the task')"
            assert concurrent.futures.wait([future]).done == {future}


def test_a_future_that_nobody_could_watch_is_settled_by_the_next_who_asks(pool, monkeypatch):
    future = pool.submit(pow, 2, 10)
    with monkeypatch.context() as patch:

        def interrupt(*_):
            raise KeyboardInterrupt

        patch.setattr(type(pool._threads()), "watch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            concurrent.futures.wait([future])
    assert future.result() == 1024
    assert concurrent.futures.wait([future]).done == {future}
