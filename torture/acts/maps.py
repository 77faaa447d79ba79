"""Many items at once: maps, and streams that are read to the end or abandoned."""

from __future__ import annotations

import random
from multiprocessing import TimeoutError as Late

from .. import tasks
from ..world import LIMIT, Violation, World, check


def many(world: World, most: int) -> int:
    """The binary logarithm of how many items there are at most: few where each may take a worker of its own."""
    return min(most, 7) if world.plan.most or world.plan.kills > 20 else most


def maps(world: World, dice: random.Random) -> None:
    """All results, in order; or the death that one of the items met."""
    count = int(2 ** dice.uniform(0, many(world, 14)))
    options = {"chunksize": dice.choice([None, None, 1, 7, 1000])}
    if dice.random() < 0.3:
        options["retries"] = 50
    items = range(count) if dice.random() < 0.7 else (n for n in range(count))
    if dice.random() < 0.5:
        ended = world.outcome(lambda: world.pool.map(tasks.square, items, **options))
    else:
        ended = world.outcome(lambda: world.pool.map_async(tasks.square, items, **options).get(timeout=LIMIT))
    if not isinstance(ended, Exception):
        check(ended == [n * n for n in range(count)], "a map's results are not what they must be")


def streams(world: World, dice: random.Random) -> None:
    """A result or a death for each item, in its place; whoever has enough goes away."""
    count, ordered = int(2 ** dice.uniform(0, many(world, 11))), dice.random() < 0.5
    enough = count + 1 if dice.random() < 0.6 else dice.randint(0, count)
    imap = world.pool.imap if ordered else world.pool.imap_unordered
    options = {"buffersize": dice.choice([None, None, 1, 100])}
    stream = world.outcome(lambda: imap(tasks.square, iter(range(count)), **options))
    if isinstance(stream, Exception):
        return
    seen, ends = set(), 0
    while ends < enough:
        try:
            value = stream.next(timeout=LIMIT)
        except StopIteration:
            break
        except Late as error:
            raise Violation(f"result {ends} of {count} does not come") from error
        except Exception as error:
            ends += 1
            if (why := world.excuse(error)) is None:
                raise Violation(f"result {ends} of {count} is {type(error).__name__}: {error}") from error
            world.tell(why)
            continue
        if ordered:
            check(value == ends * ends, f"result {ends} is {value}")
        check(value not in seen, f"{value} came twice")
        seen.add(value)
        ends += 1
    else:
        stream.close()
        world.tell("streams abandoned")
        return
    check(ends == count, f"{ends} results for {count} items")
    check(seen <= {n * n for n in range(count)}, "results of nothing")
    world.tell("values", len(seen))
