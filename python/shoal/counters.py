"""An integer that any number of processes and threads may change at once."""

from shoal._engine import Counter

__all__ = ["Counter"]
