"""Workers die by the thousand, and nothing grows."""

import pytest

from torture.deaths import growth, suffer


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_client_of_two_thousand_dead_workers_is_no_larger() -> None:
    rows = [row.balance for row in suffer(2000, rows=8)]
    # The first deaths fill what is kept for reuse.
    assert growth(rows[1], rows[-1]) == []
