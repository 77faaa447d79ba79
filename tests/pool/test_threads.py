"""Pools of threads: what they have to see to themselves. What they have in common with others is tested with these."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import shoal
from shoal.threads import ThreadPool


def numbers() -> Iterator[int]:
    return iter(range(1000))


def test_a_stream_that_was_begun_goes_on_when_its_pool_has_closed() -> None:
    pool: shoal.Pool = ThreadPool(2)
    results = pool.imap(abs, numbers(), buffersize=5)
    pool.close()
    assert list(results) == list(range(1000))
    pool.join()


def test_join_reads_what_a_stream_has_left() -> None:
    pool: shoal.Pool = ThreadPool(2)
    results, all_of_them = pool.imap(abs, numbers(), buffersize=5), pool.map_async(abs, numbers(), buffersize=5)
    pool.close()
    pool.join()
    assert list(results) == all_of_them.get() == list(range(1000))


def test_a_closed_pool_of_few_tasks_a_thread_does_all_of_a_stream() -> None:
    pool: shoal.Pool = ThreadPool(2, maxtasksperchild=1)
    results = pool.imap(abs, numbers(), buffersize=5)
    pool.close()
    assert list(results) == list(range(1000))
    pool.join()


def test_a_closed_pool_does_not_wait_for_a_stream_that_was_forgotten() -> None:
    pool: shoal.Pool = ThreadPool(2)
    results = pool.imap(abs, numbers(), buffersize=5)
    pool.close()
    del results
    gc.collect()
    pool.join()


def test_a_closed_pool_does_not_wait_for_a_stream_that_was_closed() -> None:
    pool: shoal.Pool = ThreadPool(2)
    results = pool.imap(abs, numbers(), buffersize=5)
    pool.close()
    results.close()
    pool.join()
