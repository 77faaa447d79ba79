"""shoal.why: what would stop an object, and what it costs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

import shoal
from tests.stuck import STUCK, stuck


class Model:
    """Holds data of several sizes, some of it twice."""

    def __init__(self) -> None:
        self.weights = np.zeros(1_000_000)
        self.layers = [{"bias": np.zeros(100_000)}, self.weights]
        self.words = [str(i) for i in range(100_000)]
        self.lock = threading.Lock()

    def run(self) -> None: ...


def test_all_that_stops_it_is_named_the_shortest_path_first() -> None:
    model: Any = Model()
    model.layers[0]["stream"], model.stream = stuck(), stuck()
    explanation = shoal.why([model])
    assert explanation.obstacles == (f"[0].stream: {STUCK}", f"[0].layers[0]['stream']: {STUCK}")
    assert (explanation.nbytes, explanation.shares) == (0, ())
    assert str(explanation) == (f"list can't travel:\n    [0].stream: {STUCK}\n    [0].layers[0]['stream']: {STUCK}")


def test_its_bytes_are_told_by_the_paths_to_them_largest_first() -> None:
    for obj in (Model(), Model().run):
        explanation = shoal.why(obj)
        assert explanation.obstacles == ()
        assert [share.path for share in explanation.shares] == ["self.weights", "self.layers[0]['bias']", "self.words"]
        assert [share.kind for share in explanation.shares] == ["ndarray", "ndarray", "list"]
        weights, bias, words = (share.nbytes for share in explanation.shares)
        assert 8_000_000 <= weights < 8_001_000 and 800_000 <= bias < 801_000 and words > 500_000
        assert weights + bias + words <= explanation.nbytes < weights + bias + words + 10_000


def test_the_text_says_it_in_words() -> None:
    lines = str(shoal.why(Model())).splitlines()
    assert lines[0].startswith("Model travels with 9.") and lines[0].endswith(" MB:")
    assert lines[1].split() == ["self.weights", "8.0", "MB", "ndarray"]
    assert str(shoal.why(None)).startswith("NoneType travels with ")
    assert len(str(shoal.why({i: bytes(1000) for i in range(20)})).splitlines()) == 12


def test_what_a_function_refers_to_counts() -> None:
    weights = np.zeros(1_000_000)
    assert [share.path for share in shoal.why(lambda x: x + weights).shares] == ["closure variable 'weights'"]


def test_what_travels_by_reference_costs_next_to_nothing() -> None:
    assert shoal.why([shoal.zeros(1_000_000), shoal.Lock()]).nbytes < 2000


def test_a_cycle_does_not_trap_it() -> None:
    ring: list[Any] = [np.zeros(100_000)]
    ring.append(ring)
    assert shoal.why(ring).shares[0].path == "[0]"


def test_to_be_told_moves_nothing(pool: shoal.Pool) -> None:
    before = shoal.memory().used
    assert shoal.why(np.zeros(10_000_000)).nbytes >= 80_000_000
    assert shoal.memory().used <= before
