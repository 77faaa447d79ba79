"""What all in a life share, and which ends of a task are right."""

from __future__ import annotations

import errno
import itertools
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass
from typing import Any

import shoal

from .group import Group

# Nothing takes that long, on however busy a machine: who waits longer hangs.
LIMIT = 100.0
# Tasks that are counted, in a life.
SLOTS = 1_000_000


class Violation(Exception):
    """What must never happen has happened."""


@dataclass(frozen=True)
class Plan:
    """What a life is to be like.

    Attributes:
        seed: what all its players and evils draw from.
        seconds: how long it lasts.
        workers: of its pool.
        kills: processes killed a second.
        zygotes: whether zygotes are among them.
        stops: processes stopped a second, each for a moment.
        pressed: whether memory is taken away.
        poor: whether descriptors are taken away.
        idle: seconds after which a worker rests; 0: never.
        most: tasks after which a worker is replaced; 0: never.
        visited: whether processes come that were only given handles.
        violent: whether it ends by being killed itself.
        edge: whether it has little memory, and tasks that take more (where control groups can be made).
    """

    seed: str
    seconds: float
    workers: int
    kills: float
    zygotes: bool
    stops: float
    pressed: bool
    poor: bool
    idle: float
    most: int
    visited: bool
    violent: bool
    edge: bool

    @staticmethod
    def draw(seed: str) -> Plan:
        """The plan that belongs to a seed."""
        dice = random.Random(seed)
        return Plan(
            seed=seed,
            seconds=dice.uniform(4, 10),
            workers=dice.choice([1, 2, 2, 3, 4, 8]),
            kills=dice.choice([0, 1, 5, 20, 60]),
            zygotes=dice.random() < 0.3,
            stops=dice.choice([0, 0, 2, 10]),
            pressed=dice.random() < 0.25,
            poor=dice.random() < 0.2,
            idle=dice.choice([0, 0, 0.001, 0.1]),
            most=dice.choice([0, 0, 0, 1, 20]),
            visited=dice.random() < 0.5,
            violent=dice.random() < 0.3,
            edge=dice.random() < 0.2,
        )

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in asdict(self).items()
        )


class World:
    """A life's pool, its events, and the model of what tasks may come to."""

    def __init__(self, plan: Plan, group: Group | None) -> None:
        self.plan, self.group = plan, group
        self.over = threading.Event()
        # Who was killed here, written down before. A zygote takes its workers along: then it may be anybody.
        self.victims: set[int] = set()
        self.zygote_killed = False
        # By the kernel, before this life.
        self.killed_before = group.kills() if group is not None else 0
        self.counts: Counter[str] = Counter()
        self._events: deque[tuple[float, str]] = deque(maxlen=400)
        self._lock = threading.Lock()
        self._slots = itertools.count()
        # How often each task was begun, by the task itself.
        self.begun = shoal.zeros(SLOTS, dtype="int32")
        self.pool = self.new_pool(plan.workers)

    def new_pool(self, workers: int, **options: Any) -> shoal.Pool:
        """A pool as the plan has it."""
        return shoal.Pool(
            workers, idle_timeout=self.plan.idle or None, maxtasksperchild=self.plan.most or None, **options
        )

    @property
    def is_short(self) -> bool:
        """Whether there may be no memory or descriptor for what somebody wants."""
        return self.plan.poor or self.plan.pressed or self.group is not None

    def slot(self) -> int:
        """Where a task counts how often it was begun."""
        slot = next(self._slots)
        if slot >= SLOTS:
            raise RuntimeError("a life has no room for so many tasks")
        return slot

    def tell(self, what: str, count: int = 1) -> None:
        """Counts something that has happened."""
        with self._lock:
            self.counts[what] += count

    def note(self, event: str) -> None:
        """Remembers an event for the story."""
        self._events.append((time.monotonic(), event))

    def story(self) -> str:
        """The last events."""
        now = time.monotonic()
        return "\n".join(f"{at - now:9.3f} s  {event}" for at, event in list(self._events)[-60:])

    def sleep(self, seconds: float) -> bool:
        """Waits; False if the life is over."""
        return not self.over.wait(seconds)

    # ---- the model -------------------------------------------------------------------------------------------------

    def outcome(self, get: Callable[[], Any], *, may: tuple[type[BaseException], ...] = ()) -> Any:
        """What becomes of something: its value, or one of the errors that it may end with.

        Args:
            get: waits for it.
            may: errors that it may end with besides those that the evils bring about.

        Raises:
            Violation: it is another error.
        """
        try:
            value = get()
        except may as error:
            self.tell(type(error).__name__)
            return error
        except Exception as error:
            why = self.excuse(error)
            if why is None:
                raise Violation(f"ended in {type(error).__name__}: {error}") from error
            self.tell(why)
            return error
        self.tell("values")
        return value

    def excuse(self, error: BaseException) -> str | None:
        """What an error is put down to; None: it should not be."""
        if isinstance(error, shoal.WorkerDied):
            told = "memory had run out" in error.cause
            if error.pid in self.victims and error.exitcode == -9:
                # Whatever is told: somebody else may have run out of memory beside this life.
                return "deaths"
            if self.group is None and told:
                return None
            if self.zygote_killed:
                return "deaths"
            # Where others are killed as well, one of these may be told what was another one's end.
            # Where the kernel kills the zygote, its workers go with it, and one kill is told.
            by_kernel = self.group is not None and error.exitcode == -9
            by_kernel = by_kernel and (told or self.plan.kills or self.group.kills() > self.killed_before)
            return "deaths for want of memory" if by_kernel else None
        if (self.plan.pressed or self.group is not None) and is_short_of_memory(error):
            return "out of memory"
        if self.plan.kills and "workers end before they are ready" in str(error):
            # So many were killed in a row while they started.
            return "pools given up"
        if self.plan.poor and (is_poor(error) or is_poor(error.__cause__)):
            return "out of descriptors"
        if self.plan.poor and isinstance(error, shoal.PoolClosed | CancelledError) and not self.pool._base.is_open:
            return "pools given up"
        return None


def is_short_of_memory(error: BaseException) -> bool:
    """Whether it says that there is no memory for something."""
    no_thread = isinstance(error, RuntimeError) and "can't start new thread" in str(error)
    return isinstance(error, MemoryError) or no_thread or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def is_poor(error: BaseException | None) -> bool:
    """Whether it says that there are no descriptors left."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS)


def check(so: object, what: str) -> None:
    """Raises a Violation unless it is so."""
    if not so:
        raise Violation(what)
