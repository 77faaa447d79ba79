"""Something that can't travel: pickle refuses it, and it would mean nothing in another process."""

from collections.abc import Iterator

STUCK = "cannot pickle 'generator' object"


def stuck() -> Iterator[None]:
    """A generator."""
    yield
