"""Tools for running Python on every core, compared on this machine: what ``shoal bench`` and ``make bench`` run.

A group of figures is a module with `MEASUREMENTS`. This package imports nothing: workers do, to find their tasks.
"""
