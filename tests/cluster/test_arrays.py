"""`map_array` on a cluster: what crosses, and what differs from one machine. The rest is in test_same_calls."""

from __future__ import annotations

import functools
from typing import Any

import numpy
import pytest

import shoal
from shoal.cluster import nodes


def twice(block: Any) -> Any:
    return block * 2


def test_blocks_are_worked_on_by_nodes_and_joined_here(pool: shoal.Pool) -> None:
    array = numpy.arange(100_000.0).reshape(1000, 100)
    result = pool.map_array(twice, array)
    assert type(result) is shoal.SharedArray
    numpy.testing.assert_array_equal(result, array * 2)
    out = numpy.zeros((1000, 100), "float32")
    assert pool.map_array(twice, array, axis=1, chunks=33, out=out) is out
    numpy.testing.assert_array_equal(out, (array * 2).astype("float32"))


def test_each_block_crosses_once_and_what_is_passed_whole_once_a_node(
    pool: shoal.Pool, crossed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a node that is held up gives back, for one with nothing to do, crosses again.
    monkeypatch.setattr(nodes, "level", lambda _: None)
    array, table = numpy.arange(1 << 17) % 1000, numpy.arange(1 << 17) ** 2
    result = pool.map_array(functools.partial(numpy.take, table), array, chunks=1 << 12)
    numpy.testing.assert_array_equal(result, table[array])
    assert array.nbytes + table.nbytes <= sum(crossed) <= array.nbytes + 2 * table.nbytes + (1 << 16)


def test_a_block_of_a_shared_array_is_read_only_and_of_an_ordinary_one_private(pool: shoal.Pool) -> None:
    def fill(block: Any) -> Any:
        block[...] = 7
        return block

    array = numpy.zeros(10)
    assert pool.map_array(fill, array, chunks=5).tolist() == [7] * 10
    assert array.tolist() == [0] * 10
    with pytest.raises(ValueError, match="can't be written to on another machine") as caught:
        pool.map_array(fill, shoal.zeros(10), chunks=5)
    assert caught.value.__notes__ == ["raised for block 0:5 of axis 0"]


def test_random_numbers_are_those_of_a_pool_of_this_machine(cluster: Any) -> None:
    def noise(block: Any) -> Any:
        return shoal.rng().integers(1000, size=len(block))

    array = numpy.zeros(20)
    with shoal.Pool(1, cluster=cluster, seed=7) as far, shoal.Pool(2, seed=7) as near:
        for _ in range(2):
            assert far.map_array(noise, array, chunks=3).tolist() == near.map_array(noise, array, chunks=3).tolist()
