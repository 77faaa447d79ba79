"""The simulation of large clusters agrees with what can be known without it."""

import pytest

from benchmarks.scale.model import Cluster, Hub, ceiling, smallest_batch, utilisation

TEN = Cluster(nodes=10, cores=8, dispatch=0.0)


def test_a_hub_that_costs_nothing_keeps_all_cores_busy() -> None:
    assert utilisation(Hub("free", 0.0, 0.0, 0.0), TEN, duration=1.0, size=64) > 0.97


@pytest.mark.parametrize("size", [1, 8, 64])
def test_a_hub_that_is_too_slow_gives_what_its_rate_allows(size: int) -> None:
    slow = Hub("slow", 0.1, 0.1, 0.0)
    most = ceiling(slow, TEN, duration=1.0, size=size)
    assert most < 0.3
    assert utilisation(slow, TEN, duration=1.0, size=size) == pytest.approx(most, rel=0.1)


@pytest.mark.parametrize("size", [1, 64])
def test_nodes_that_pass_tasks_on_too_slowly_give_what_their_rate_allows(size: int) -> None:
    slow = Cluster(nodes=10, cores=8, dispatch=0.0, batch=0.3, task=0.3)
    free = Hub("free", 0.0, 0.0, 0.0)
    most = ceiling(free, slow, duration=1.0, size=size)
    assert 0.2 < most < 0.5
    assert utilisation(free, slow, duration=1.0, size=size) == pytest.approx(most, rel=0.15)


def test_what_cores_spend_on_dispatch_is_not_used() -> None:
    half = Cluster(nodes=10, cores=8, dispatch=1.0)
    assert utilisation(Hub("free", 0.0, 0.0, 0.0), half, duration=1.0, size=64) == pytest.approx(0.5, abs=0.02)


def test_the_smallest_batch_is_the_first_that_reaches_the_goal() -> None:
    hub = Hub("hub", 0.01, 0.0, 0.0)
    # The hub gives 100 batches a second. 80 cores want 80 tasks of a second, or 800 of a tenth.
    assert smallest_batch(hub, TEN, duration=1.0, goal=0.9, most=64) == 1
    assert smallest_batch(hub, TEN, duration=0.1, goal=0.9, most=64) in (8, 16)


def test_no_batch_helps_if_the_tasks_themselves_are_too_much() -> None:
    assert smallest_batch(Hub("hub", 0.0, 0.1, 0.0), TEN, duration=1.0, goal=0.9, most=64) is None
