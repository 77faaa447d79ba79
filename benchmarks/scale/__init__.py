"""A simulation of clusters larger than one has at hand: `python -m benchmarks.scale`."""
