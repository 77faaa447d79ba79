"""Figures of shoal beside those of other tools, measured in one run: ``python -m benchmarks``.

What users can measure themselves is in the package, in ``shoal.bench``; here is what only its developers ask for.
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent
