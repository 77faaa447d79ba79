"""Importing shoal: where it can't run it says where it can, and its version is stated once."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

import shoal
from tests.conftest import Run


@pytest.mark.parametrize("platform", ["win32", "darwin", "freebsd14"])
def test_on_another_system_the_import_says_what_is_supported(run: Run, platform: str) -> None:
    ran = run(f"import sys; sys.platform = {platform!r}; import shoal")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        f"ImportError: shoal runs on Linux (kernel 5.14 or newer, x86-64 or aarch64), not on {platform}"
    )


def test_without_an_engine_for_this_interpreter_the_import_says_which_there_are(run: Run) -> None:
    ran = run("import sys; sys.modules['shoal._engine'] = None; import shoal")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        "ImportError: shoal's engine is not here for this interpreter. It is made for CPython 3.11 or newer on x86-64 "
        "and aarch64; in a checkout, `pip install .` builds it"
    )


def test_the_version_is_that_of_the_workspace() -> None:
    workspace = tomllib.loads((Path(__file__).parents[2] / "Cargo.toml").read_text())["workspace"]
    version = workspace["package"]["version"]
    assert shoal.__version__ == version
    assert importlib.metadata.version("shoal") == version
    # Cargo wants it at the crates that depend on each other, too.
    assert {workspace["dependencies"][name]["version"] for name in ("shoal-sys", "shoal-core")} == {version}
