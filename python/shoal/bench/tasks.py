"""What the workers run: an ordinary module, because most tools import a task's function by name."""


def noop(item: int) -> int:
    """Does nothing: all that is measured is the way there and back."""
    return item


def spin(count: int) -> int:
    """Works for `count` turns of a loop. Counted, not clocked: a core that is shared with others takes longer."""
    for _ in range(count):
        pass
    return count
