"""joblib's backend "shoal": what uses `joblib.Parallel`, as scikit-learn does, runs on shoal's workers.

>>> shoal.joblib.register()
>>> with joblib.parallel_config(backend="shoal"):
...     joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-1, 2))
[1, 2]
"""

from __future__ import annotations

__all__ = ["register"]


def register(make_default: bool = False) -> None:
    """Make the backend "shoal" known to joblib. Again is no harm.

    Then `joblib.parallel_config(backend="shoal")` and `joblib.Parallel(backend="shoal")` take it, with all that joblib
    offers: `return_as`, `timeout`, `batch_size`, `pre_dispatch`, `inner_max_num_threads`, nesting. Further arguments
    are those of `shoal.Pool`: `initializer`, `initargs`, `maxtasksperchild`, `preload`, `memory_limit`, `retries`.

    Args:
        make_default: whether it is taken where no backend is named.

    Raises:
        ImportError: joblib is not installed.

    Example:
        >>> shoal.joblib.register()
        >>> joblib.Parallel(n_jobs=2, backend="shoal")(joblib.delayed(abs)(x) for x in (-1, 2))
        [1, 2]
    """
    from joblib.parallel import register_parallel_backend

    from shoal.integrations.joblib import ShoalBackend

    register_parallel_backend("shoal", ShoalBackend, make_default)
