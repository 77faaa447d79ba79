"""The examples of all docstrings, those of the engine too, run and give what they show.

An example may take for granted what its reader has before his eyes: the names that `given` makes, anew for each.
"""

import asyncio
import doctest
import importlib
import inspect
import os
import pickle
import pkgutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy
import pytest

import shoal

MODULES = sorted(
    found.name for found in pkgutil.walk_packages(shoal.__path__, "shoal.") if "__main__" not in found.name
)
PARSER = doctest.DocTestParser()


def docstrings(of: object, name: str, module: str) -> Iterator[tuple[str, str]]:
    """What is documented in `of`, by name; also the properties of the engine's classes, which doctest does not see."""
    yield name, of.__doc__ or ""
    for attribute, member in vars(of).items():
        inner = getattr(member, "__func__", getattr(member, "fget", member))
        if inspect.isclass(inner) and inner.__module__ == module:
            yield from docstrings(inner, f"{name}.{attribute}", module)
        elif inspect.isroutine(inner) or inspect.isgetsetdescriptor(inner):
            # Functions that were imported belong elsewhere; what numpy's methods say is numpy's.
            if getattr(inner, "__module__", module) in (module, None):
                yield f"{name}.{attribute}", inner.__doc__ or ""


def examples() -> Iterator[doctest.DocTest]:
    seen = {method.__doc__ for method in vars(numpy.ndarray).values()}
    for name in ["shoal", *MODULES]:
        for where, text in docstrings(importlib.import_module(name), name, name):
            if ">>>" in text and text not in seen:
                seen.add(text)
                yield PARSER.get_doctest(text, {}, where.removeprefix("shoal."), where, 0)


@pytest.fixture(scope="module")
def workers() -> Iterator[shoal.Pool]:
    with shoal.Pool(2) as pool:
        yield pool
    pool.join()


@pytest.fixture
def given(workers: shoal.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Modules that are named as their users name them; a pool; one of each shared thing; a file of four frames."""
    monkeypatch.chdir(tmp_path)
    numpy.save("frames.npy", numpy.arange(12).reshape(4, 3))
    modules = (asyncio, joblib, numpy, os, pickle, shoal, threading, time)
    with shoal.tqdm(total=1) as bar:
        yield {
            "__name__": "__main__",
            **{module.__name__: module for module in modules},
            "pool": workers,
            "bar": bar,
            "barrier": shoal.Barrier(1),
            "condition": shoal.Condition(),
            "counter": shoal.Counter(),
            "event": shoal.Event(),
            "lock": shoal.Lock(),
            "semaphore": shoal.Semaphore(),
            "table": shoal.zeros(3),
            "total": shoal.zeros(1),
            # What is worked on, and what works.
            "chunk": [0],
            "items": [0],
            "paths": ["frames.npy"],
            **dict.fromkeys(("fetch", "play", "read"), lambda _: None),
        }


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_the_examples_of_a_docstring_run(example: doctest.DocTest, given: dict[str, object]) -> None:
    example.globs = given
    told: list[str] = []
    # Said, or it would look for a -v of pytest's.
    doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert not told, "".join(told)
