"""The wheel, as users get it: installed in a clean environment of every CPython found, and tested there.

One environment, that of this interpreter, gets what the source distribution builds instead of the wheel. Prints a line
for each; exit status 1 if one fails, or if the Python that shoal's wheel is named after is missing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A little of everything: calls and maps, functions of __main__, arrays, locks, bars, deaths.
TESTS = (
    "tests/pool/test_apply.py",
    "tests/pool/test_map.py",
    "tests/pool/test_functions.py",
    "tests/array/test_travel.py",
    "tests/sync/test_lock.py",
    "tests/sync/test_counter.py",
    "tests/queues/test_queue.py",
    "tests/progress/test_elsewhere.py",
)
OLDEST = 11
NEWEST = 20


def main() -> int:
    """Tests what lies in dist; returns the exit status."""
    dist = ROOT / "dist"
    (wheel,), (sdist,) = dist.glob("shoal-*.whl"), dist.glob("shoal-*.tar.gz")
    pythons = find_pythons()
    if OLDEST not in pythons:
        print(f"there is no working python3.{OLDEST}: the wheel is named after it and has to be tested with it")
        return 1
    jobs = [(python, wheel) for _, python in sorted(pythons.items())] + [(Path(sys.executable), sdist)]
    return max([test(python, package) for python, package in jobs])


def find_pythons() -> dict[int, Path]:
    """The working interpreters by minor version, from PATH and from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in range(OLDEST, NEWEST):
        name = f"python3.{minor}"
        on_path = shutil.which(name)
        candidates = [*([Path(on_path)] if on_path else []), *sorted(pyenv.glob(f"3.{minor}.*/bin/{name}"))]
        for python in candidates:
            # A shim of pyenv is there for every version, also for those that are not switched on.
            code = f"import sys, venv; assert sys.version_info[:2] == (3, {minor}); print(sys.executable)"
            asked = subprocess.run([python, "-c", code], capture_output=True, text=True)
            if asked.returncode == 0:
                found[minor] = Path(asked.stdout.strip())
                break
    return found


def test(python: Path, package: Path) -> int:
    """Installs and tests in an environment of its own; returns the exit status."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shoal-wheel-") as directory:
        home = Path(directory) / "venv"
        inside = home / "bin" / "python"
        steps = (
            [python, "-m", "venv", "--without-pip", home],
            # The environment has no maturin: a source distribution is built with this one's.
            [*pip(inside), "--group", f"{ROOT / 'pyproject.toml'}:test", *built(package, Path(directory))],
            [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *TESTS],
        )
        # Neither the source tree nor the environment this runs in may be in the way.
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment["PATH"] = f"{inside.parent}:{environment['PATH']}"
        for step in steps:
            ran = subprocess.run(step, cwd=ROOT, env=environment, capture_output=True, text=True)
            if ran.returncode != 0:
                print(f"{package.name} on {python}: FAILED\n{ran.stdout}{ran.stderr}", flush=True)
                return 1
        summary = ran.stdout.strip().splitlines()[-1]
    print(f"{package.name} on {python}: {summary}; {time.monotonic() - started:.0f} s in all", flush=True)
    return 0


def pip(python: Path) -> list[str | Path]:
    """Installs into the environment of `python`, with the pip of this one."""
    return [sys.executable, "-m", "pip", "--quiet", "--python", python, "install"]


def built(package: Path, directory: Path) -> list[Path]:
    """The wheel itself, or the one that the source distribution builds."""
    if package.suffix == ".whl":
        return [package]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    # How fast it is does not matter here, how long it takes to build does.
    quick = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16"}
    subprocess.run([*command, "--wheel-dir", directory, package], check=True, env=os.environ | quick)
    return list(directory.glob("*.whl"))


if __name__ == "__main__":
    sys.exit(main())
