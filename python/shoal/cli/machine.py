"""What this machine allows, judged: the checks behind ``shoal doctor``.

A check looks at a `Machine` and gives findings. Tests look at machines that don't exist.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shoal import _budget, _engine, _launch
from shoal._text import size

__all__ = ["CHECKS", "Finding", "Machine", "Status", "examine"]

Status = Literal["ok", "note", "warn", "fail"]

# Older kernels lack what workers are watched and memory is populated with.
KERNEL = (5, 14)
ARCHITECTURES = ("x86_64", "aarch64")
# Clocks that are read without a system call. Each task is timed twice.
QUICK_CLOCKS = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page")
# What a pool needs besides its workers' own: segments, sockets, processes.
DESCRIPTORS = 256
# Less memory than this for each worker does not hold an interpreter with numpy and some data.
MEMORY_A_WORKER = 200 << 20


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        name: what was looked at.
        status: "ok"; "note": good to know; "warn": shoal runs, but not well; "fail": it does not run.
        value: what was found.
        reason: why it matters, and what to change.
    """

    name: str
    status: Status
    value: str
    reason: str = ""


class Machine:
    """The facts, as the system tells them. What can't be read is None, or nothing."""

    environ: Mapping[str, str] = os.environ
    pid: int = os.getpid()
    user: int = os.geteuid()

    def kernel(self) -> tuple[str, str]:
        """Its release and its architecture."""
        return platform.release(), platform.machine()

    def python(self) -> tuple[str, str, bool]:
        """Implementation and version of this Python, and whether it has a lock of the interpreter."""
        locked = getattr(sys, "_is_gil_enabled", lambda: True)()
        return platform.python_implementation(), platform.python_version(), locked

    def cpus(self) -> tuple[int, int, int]:
        """CPUs of the machine, those this process may run on, and those its quota leaves."""
        return os.cpu_count() or 1, len(os.sched_getaffinity(0)), _engine.cpu_count()

    def memory(self) -> tuple[int, int]:
        """Bytes that this process could use if it were alone, and that it can use now."""
        return _engine.machine_memory()

    def limit(self, which: int) -> int:
        """A limit of this process, -1 for none."""
        return resource.getrlimit(which)[0]

    def read(self, path: str) -> str | None:
        """A file of /proc or /sys."""
        try:
            return Path(path).read_text(errors="replace")
        except OSError:
            return None

    def group(self, controller: str, v1: str, v2: str) -> list[str]:
        """A file of this process's control group and of those above it, from its own upwards."""
        return _engine.control_groups(controller, v1, v2)

    def collapse(self) -> str | None:
        """Why shared memory can't be moved to huge pages; None if it can."""
        return _engine.try_collapse()

    def import_hooks(self) -> list[str]:
        """Finders that are not Python's own."""
        return [name for name in map(_launch._finder_name, sys.meta_path) if name not in _launch._PLAIN_FINDERS]


def kernel(machine: Machine) -> Iterator[Finding]:
    """What the system must be able to do."""
    release, architecture = machine.kernel()
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    value = f"Linux {release}, {architecture}"
    if version < KERNEL:
        needed = ".".join(map(str, KERNEL))
        yield Finding("kernel", "fail", value, f"shoal needs {needed} or newer: older ones can't watch workers safely")
    elif architecture not in ARCHITECTURES:
        yield Finding("kernel", "fail", value, f"shoal runs on {' and '.join(ARCHITECTURES)}")
    else:
        yield Finding("kernel", "ok", value, "new enough for all that shoal asks of it")
    clock = (machine.read("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "").strip()
    if clock and clock not in QUICK_CLOCKS:
        yield Finding(
            "clock",
            "warn",
            clock,
            "each look at the clock is a system call, and tasks are timed: short ones take several times as long. "
            "Boot with clocksource=tsc if the hardware allows it",
        )


def python(machine: Machine) -> Iterator[Finding]:
    """The interpreter, and what delays its start."""
    implementation, version, locked = machine.python()
    if implementation != "CPython":
        yield Finding("Python", "fail", f"{implementation} {version}", "shoal runs on CPython 3.11 or newer")
    elif not locked:
        yield Finding(
            "Python", "note", f"CPython {version}, free-threaded", "shoal's workers are processes all the same"
        )
    else:
        yield Finding("Python", "ok", f"CPython {version}")
    hooks = machine.import_hooks()
    if hooks:
        yield Finding(
            "start",
            "note",
            f"import hooks: {', '.join(hooks)}",
            "the first pool starts later, as `site` runs once more to set them up. Editable installs are a usual cause",
        )


def cpus(machine: Machine) -> Iterator[Finding]:
    """How many workers a pool has by default, and why."""
    installed, mine, granted = machine.cpus()
    value = f"{granted} of {installed}"
    limits = []
    if mine < installed:
        limits.append(f"the affinity of this process allows {mine}")
    if granted < mine:
        limits.append("the control group's quota grants no more")
    why = "; ".join(limits) or "all of them"
    if granted == 1:
        yield Finding("CPUs", "warn", value, f"{why}: nothing can run at the same time. Give this process two or more")
    else:
        yield Finding("CPUs", "ok", value, f"{why}; so many workers does a pool have by default")
    times = machine.group("cpu", "cpu.stat", "cpu.stat")
    throttled, periods = _counter(times, "nr_throttled"), _counter(times, "nr_periods")
    if throttled * 20 > periods > 0:
        yield Finding(
            "quota",
            "warn",
            f"stopped in {throttled} of {periods} periods",
            "all processes of the control group are stopped for the rest of a period when it has used up its quota. "
            "Grant more CPU time, or start fewer workers",
        )


def memory(machine: Machine) -> Iterator[Finding]:
    """How much there is for shared arrays, and who sets the limit."""
    total, available = machine.memory()
    whole = re.search(r"^MemTotal: *(\d+) kB", machine.read("/proc/meminfo") or "", re.MULTILINE)
    limited = whole is not None and total < int(whole[1]) * 1024
    value = f"{size(available)} of {size(total)} available"
    whose = "the control group's limit" if limited else "the machine's memory"
    workers = machine.cpus()[2]
    if available < MEMORY_A_WORKER * workers:
        yield Finding(
            "memory",
            "warn",
            value,
            f"{whose} is little for {workers} workers: the kernel may end some. Raise it, or start fewer workers",
        )
    else:
        yield Finding("memory", "ok", value, f"{whose}; shared arrays and results count towards it")
    killed = _counter(machine.group("memory", "memory.oom_control", "memory.events"), "oom_kill")
    if killed:
        yield Finding(
            "memory",
            "warn",
            f"{killed} processes ended for want of memory",
            "the kernel ended processes of this control group that used up its memory. A task whose worker is ended "
            "this way raises WorkerDied. Raise the limit, or start fewer workers",
        )


def shared_memory(machine: Machine) -> Iterator[Finding]:
    """What shared memory rests on, and what it does not."""
    most = machine.limit(resource.RLIMIT_FSIZE)
    if most >= 0:
        yield Finding(
            "shared memory",
            "fail" if most < 64 << 20 else "warn",
            f"files of at most {size(most)}",
            "shared memory is anonymous files, which the limit of file sizes concerns. Lift it: ulimit -f unlimited",
        )
    else:
        yield Finding(
            "shared memory", "ok", "anonymous files", "/dev/shm and its size, 64 MB in many containers, do not matter"
        )
    enabled = _chosen(machine.read("/sys/kernel/mm/transparent_hugepage/shmem_enabled"))
    refused = machine.collapse()
    able = f"the kernel can't ({refused})" if refused else "possible"
    yield Finding(
        "huge pages",
        "note",
        f"shmem_enabled is {enabled or 'not there'}; moving memory to them is {able}",
        "shoal keeps small pages warm instead, and does not need them",
    )


def limits(machine: Machine) -> Iterator[Finding]:
    """How many descriptors and processes there may be."""
    workers = machine.cpus()[2]
    files = machine.limit(resource.RLIMIT_NOFILE)
    needed = DESCRIPTORS + 2 * workers
    if 0 <= files < needed:
        yield Finding(
            "descriptors", "warn", f"{files} at most", f"a pool may need {needed}. Raise the limit: ulimit -n {needed}"
        )
    else:
        yield Finding("descriptors", "ok", f"{'any number' if files < 0 else files} at most", "one for each segment")
    most = [int(text) for text in machine.group("pids", "pids.max", "pids.max") if text.strip().isdigit()]
    ours = machine.limit(resource.RLIMIT_NPROC)
    # root is free of it.
    if ours >= 0 and machine.user != 0:
        most.append(ours)
    # Each worker, and the threads of whatever it uses.
    if most and min(most) < 4 * workers + 16:
        yield Finding(
            "processes",
            "warn",
            f"{min(most)} at most",
            f"{workers} workers and their threads may not fit. Raise pids.max of the container, or ulimit -u",
        )


def container(machine: Machine) -> Iterator[Finding]:
    """Traps of containers."""
    if machine.pid == 1:
        yield Finding(
            "init",
            "note",
            "this process is number 1",
            "it is to reap orphans of others and does not. Start the container with an init (docker run --init)",
        )
    if "gVisor" in (machine.read("/proc/version") or ""):
        yield Finding(
            "sandbox", "warn", "gVisor", "system calls cost several times as much: prefer tasks of 1 ms or more"
        )


def threads(machine: Machine) -> Iterator[Finding]:
    """Threads of BLAS and OpenMP, times workers."""
    workers = machine.cpus()[2]
    many = {}
    for name in _budget.THREADS:
        value = machine.environ.get(name, "")
        if value.isdigit() and int(value) > 1:
            many[name] = int(value)
    if many and workers > 1:
        name, most = max(many.items(), key=lambda entry: entry[1])
        yield Finding(
            "BLAS threads",
            "warn",
            ", ".join(f"{name}={value}" for name, value in many.items()),
            f"{workers} workers with {most} threads each compete for {workers} CPUs. Unset {name}: then they have one",
        )
    else:
        yield Finding("BLAS threads", "ok", "one in each worker", "the workers share the CPUs already")


def load(machine: Machine) -> Iterator[Finding]:
    """Whether others want the CPUs at this moment."""
    average = float((machine.read("/proc/loadavg") or "0").split()[0])
    granted = machine.cpus()[2]
    if average > granted:
        yield Finding("load", "note", f"{average:g}", f"more than {granted} CPUs are wanted by what runs here now")


CHECKS: tuple[Callable[[Machine], Iterable[Finding]], ...] = (
    kernel,
    python,
    cpus,
    memory,
    shared_memory,
    limits,
    container,
    threads,
    load,
)


def examine(machine: Machine) -> list[Finding]:
    """All findings of all checks."""
    return [finding for check in CHECKS for finding in check(machine)]


def _counter(texts: list[str], name: str) -> int:
    """The number that follows a name in a file of this process's own group; 0 if there is none."""
    found = re.search(rf"^{name} (\d+)$", texts[0], re.MULTILINE) if texts else None
    return int(found[1]) if found else 0


def _chosen(text: str | None) -> str:
    """The word in brackets, as in "always [never]"."""
    found = re.search(r"\[(\w+)\]", text or "")
    return found[1] if found else ""
