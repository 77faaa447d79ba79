"""``shoal doctor``: what it says of machines that are given to it, and of the one it runs on."""

import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from shoal.cli.doctor import table
from shoal.cli.machine import Finding, Machine, examine


class Fake(Machine):
    """A machine where all is well, but for what the test says."""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        self.environ: Mapping[str, str] = facts.get("environ", {})
        self.pid: int = facts.get("pid", 4711)
        self.user: int = facts.get("user", 1000)

    def kernel(self) -> tuple[str, str]:
        return self.facts.get("kernel", ("6.1.0", "x86_64"))

    def python(self) -> tuple[str, str, bool]:
        return self.facts.get("python", ("CPython", "3.11.7", True))

    def cpus(self) -> tuple[int, int, int]:
        return self.facts.get("cpus", (8, 8, 8))

    def memory(self) -> tuple[int, int]:
        return self.facts.get("memory", (32 << 30, 16 << 30))

    def limit(self, which: int) -> int:
        return self.facts.get("limits", {}).get(which, {resource.RLIMIT_NOFILE: 1024}.get(which, -1))

    def read(self, path: str) -> str | None:
        texts = {"/proc/meminfo": f"MemTotal: {32 << 20} kB\n", "/proc/loadavg": "0.10 0.10 0.10 1/100 4711\n"}
        return (texts | self.facts.get("files", {})).get(path)

    def group(self, controller: str, v1: str, v2: str) -> list[str]:
        text = self.facts.get("groups", {}).get(v2)
        return [] if text is None else [text]

    def collapse(self) -> str | None:
        return None

    def import_hooks(self) -> list[str]:
        return self.facts.get("hooks", [])


def found(name: str, **facts: Any) -> Finding:
    """The one finding of that name on such a machine; all others must be what they are where all is well."""
    usual = {finding.name for finding in examine(Fake())}
    findings = examine(Fake(**facts))
    assert {finding.name for finding in findings} <= usual | {name}
    return max((finding for finding in findings if finding.name == name), key=lambda finding: finding.status != "ok")


def test_where_all_is_well_nothing_is_warned_of() -> None:
    assert {finding.status for finding in examine(Fake())} <= {"ok", "note"}


@pytest.mark.parametrize(
    ("name", "facts", "status", "says"),
    [
        ("kernel", {"kernel": ("5.4.0-150", "x86_64")}, "fail", "needs 5.14 or newer"),
        ("kernel", {"kernel": ("6.1.0", "riscv64")}, "fail", "x86_64 and aarch64"),
        (
            "clock",
            {"files": {"/sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n"}},
            "warn",
            "tsc",
        ),
        ("Python", {"python": ("PyPy", "3.11.13", True)}, "fail", "CPython 3.11 or newer"),
        ("Python", {"python": ("CPython", "3.14.0", False)}, "note", "processes all the same"),
        ("start", {"hooks": ["_EditableFinder"]}, "note", "_EditableFinder"),
        ("CPUs", {"cpus": (64, 64, 4)}, "ok", "quota"),
        ("CPUs", {"cpus": (64, 4, 4)}, "ok", "affinity"),
        ("CPUs", {"cpus": (1, 1, 1)}, "warn", "two or more"),
        ("quota", {"groups": {"cpu.stat": "nr_periods 1000\nnr_throttled 300\n"}}, "warn", "300 of 1000 periods"),
        ("memory", {"memory": (512 << 20, 300 << 20)}, "warn", "the control group's limit is little for 8 workers"),
        ("memory", {"memory": (4 << 30, 2 << 30)}, "ok", "the control group's limit"),
        ("memory", {"groups": {"memory.events": "oom 3\noom_kill 2\n"}}, "warn", "2 processes ended"),
        ("shared memory", {"limits": {resource.RLIMIT_FSIZE: 1 << 20}}, "fail", "ulimit -f"),
        ("descriptors", {"limits": {resource.RLIMIT_NOFILE: 64}}, "warn", "ulimit -n 272"),
        ("processes", {"groups": {"pids.max": "20\n"}}, "warn", "20 at most"),
        ("processes", {"limits": {resource.RLIMIT_NPROC: 30}}, "warn", "30 at most"),
        ("init", {"pid": 1}, "note", "--init"),
        ("sandbox", {"files": {"/proc/version": "Linux version 4.4.0 gVisor"}}, "warn", "1 ms or more"),
        ("BLAS threads", {"environ": {"OMP_NUM_THREADS": "8"}}, "warn", "8 workers with 8 threads each"),
        ("load", {"files": {"/proc/loadavg": "12.5 3.0 1.0 9/100 1\n"}}, "note", "12.5"),
    ],
)
def test_what_stands_in_the_way_is_named_with_its_remedy(
    name: str, facts: dict[str, Any], status: str, says: str
) -> None:
    finding = found(name, **facts)
    assert finding.status == status
    assert says in f"{finding.value}: {finding.reason}"


@pytest.mark.parametrize(
    "facts",
    [
        {"environ": {"OMP_NUM_THREADS": "1"}},
        {"limits": {resource.RLIMIT_NPROC: 30}, "user": 0},
        {
            "groups": {
                "pids.max": "max\n",
                "cpu.stat": "nr_periods 1000\nnr_throttled 3\n",
                "memory.events": "oom_kill 0\n",
            }
        },
    ],
)
def test_what_is_in_order_is_not_warned_of(facts: dict[str, Any]) -> None:
    assert {finding.status for finding in examine(Fake(**facts))} <= {"ok", "note"}


def test_the_last_line_is_the_verdict() -> None:
    lines = {status: table([Finding("x", status, "y")], 80).splitlines()[-1] for status in ("ok", "warn", "fail")}
    assert lines["ok"] == "shoal will run well here."
    assert "not as well as it could" in lines["warn"]
    assert "does not run here" in lines["fail"]


def doctor(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, "-m", "shoal", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environ, timeout=150)


def test_here_a_pool_is_really_started_and_an_array_shared() -> None:
    ran = doctor("--json")
    report = json.loads(ran.stdout)
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert findings["a pool"]["status"] == findings["sharing"]["status"] == "ok", report
    assert ran.stderr == ""
    assert ran.returncode == (0 if report["runs_well"] else 1)


def test_the_exit_status_says_that_something_is_in_the_way() -> None:
    ran = doctor(OMP_NUM_THREADS="64")
    assert ran.returncode == 1
    assert "Unset OMP_NUM_THREADS" in " ".join(ran.stdout.split())
