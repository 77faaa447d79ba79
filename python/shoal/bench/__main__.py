"""The interpreter of one sample: ``python -m shoal.bench --sample FIGURE TOOL``. People call ``shoal bench``."""

import argparse

from .groups import MEASUREMENTS
from .harness import sample_here

parser = argparse.ArgumentParser(prog="python -m shoal.bench", description="Takes one sample of a figure.")
parser.add_argument("--sample", nargs=2, metavar=("FIGURE", "TOOL"), required=True, help="prints its values as JSON")
parser.add_argument("--quick", action="store_true", help="a small one")
options = parser.parse_args()
key, contender = options.sample
sample_here(MEASUREMENTS[key], contender, options.quick)
