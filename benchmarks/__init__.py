"""Figures of shoal beside those of other tools, measured in one run: ``python -m benchmarks``."""
