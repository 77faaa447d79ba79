"""What the tests of integrations share."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Marks that joblib's own tests use."""
    for mark in ("thread_unsafe", "no_cover"):
        config.addinivalue_line("markers", f"{mark}: of joblib's tests")
