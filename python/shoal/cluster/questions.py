"""Questions to nodes, and their answers."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.cluster.linked import Linked

__all__ = ["Question", "Questions"]


class Question:
    """A question to a node.

    Attributes:
        node: whom.
        answer: what it said; None if it was lost meanwhile.
        asked, told: when it was asked, and when the answer was here, in nanoseconds; `told` is 0 if there was none.
        then: called with the answer where it arrives: whoever asked may have been interrupted.
    """

    def __init__(self, node: Linked, then: Callable[[Any], object] | None = None) -> None:
        self.node, self.then = node, then
        self.answer: Any = None
        self.asked, self.told = time.monotonic_ns(), 0
        # Held until there is an answer, or will be none.
        self._latch = threading.Lock()
        self._latch.acquire()

    def wait(self) -> None:
        """Wait for the answer; one thread does."""
        self._latch.acquire()

    def end(self) -> None:
        """Wait no more."""
        self._latch.release()


class Questions:
    """Those of a pool's client."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        # A finalizer may ask, whatever its thread is at.
        self._lock = threading.RLock()
        self._open: dict[int, Question] = {}

    def ask(
        self, nodes: Iterable[Linked], what: str, *arguments: Any, then: Callable[[Any], object] | None = None
    ) -> list[Question]:
        """Ask all these nodes at once."""
        questions = []
        for node in nodes:
            question = Question(node, then)
            questions.append(question)
            with self._lock:
                if node.is_lost:
                    question.end()
                    continue
                number = next(self._numbers)
                self._open[number] = question
            node.link.send(("ask", number, what, *arguments))
        return questions

    def told(self, number: int, answer: Any) -> None:
        """An answer has come."""
        with self._lock:
            question = self._open.pop(number, None)
        if question is not None:
            question.answer, question.told = answer, time.monotonic_ns()
            if question.then is not None:
                question.then(answer)
            question.end()

    def lost(self, node: Linked) -> None:
        """A node is lost: it answers nothing any more."""
        with self._lock:
            node.is_lost = True
            numbers = [number for number, question in self._open.items() if question.node is node]
            questions = [self._open.pop(number) for number in numbers]
        for question in questions:
            question.end()
