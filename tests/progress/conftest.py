"""A pool whose workers wait for the screen as long as it takes."""

from collections.abc import Iterator

import pytest

import shoal


@pytest.fixture
def pool() -> Iterator[shoal.Pool]:
    """As everywhere, but for its workers' patience.

    What they have drawn is there before their results, if the screen answers within two seconds. On a busy machine it
    may not, and that is not what is tested.
    """

    def be_patient() -> None:
        import shoal.progress.line

        shoal.progress.line.PATIENCE = 100.0

    with shoal.Pool(2, be_patient) as pool:
        yield pool
    pool.join()
