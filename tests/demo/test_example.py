"""The readable example runs as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("skimage")

EXAMPLE = Path(__file__).parents[2] / "examples" / "features.py"


@pytest.mark.slow
def test_the_example_resets_every_position() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "229 MB of features, 5,000,000 of 5,000,000 positions are 0" in done.stdout
