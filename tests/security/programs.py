"""What runs wild: a task that writes over the memory that its pool, or everybody, shares."""

import random

EDGES = [0, 1, 7, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]


def scribble(segment: str, seed: int, words: int, span: int) -> bool:
    """Writes so many words, chosen by `seed`, into the first `span` bytes of each mapped segment of that name."""
    dice = random.Random(seed)
    places = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            if f"/memfd:{segment} " in line and line.split()[1] == "rw-s":
                start, end = (int(address, 16) for address in line.split()[0].split("-"))
                places.append((start, min(end, start + span)))
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        for _ in range(words):
            start, end = dice.choice(places)
            memory.seek(dice.randrange(start, end - 8, 8))
            word = dice.choice([dice.randrange(2**64), dice.choice(EDGES)])
            memory.write(word.to_bytes(8, "little"))
    return bool(places)


def double(number: int) -> int:
    """A task."""
    return 2 * number
