"""Shared memory has no name, is for its user alone, and keeps its size: see docs/security.md."""

import os
from pathlib import Path

import pytest

from tests.conftest import Run

# What uses all that there is, and can be asked from a worker, too.
PROGRAM = """
import fcntl, os, socket, stat, subprocess, sys
import numpy, shoal

def opened():
    return {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{fd}")}

def segments():
    return {fd: name for fd, name in opened().items() if name.startswith("/memfd:shoal")}

def everything():
    things = [shoal.array(numpy.arange(200_000.0)), shoal.Queue(), shoal.Lock(), shoal.Counter(), shoal.Barrier(2)]
    things[1].put(numpy.ones(100_000))
    return things
"""


def test_every_segment_is_sealed_at_its_size_and_its_users_alone(run: Run) -> None:
    answer = run(
        PROGRAM
        + """
def check(_):
    things = everything()
    assert segments()
    for fd, name in segments().items():
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        assert mode == 0o600, (name, oct(mode))
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals & (SEALS := fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL) == SEALS, (name, seals)
        for size in (0, os.fstat(fd).st_size + 4096):
            try:
                os.ftruncate(fd, size)
            except PermissionError:
                continue
            raise AssertionError(f"{name} is another size now")
    return sorted(set(segments().values()))

if __name__ == "__main__":
    with shoal.Pool(2) as pool:
        print(check(None), pool.map(check, [0, 1], chunksize=1)[0])
"""
    )
    assert answer.stderr == ""
    assert answer.stdout.count("memfd:shoal-pool") == 2 and answer.stdout.count("memfd:shoal-roster") == 2


def test_nothing_has_a_name_in_a_file_system_or_that_others_than_sockets_could_have(run: Run, tmp_path: Path) -> None:
    answer = run(
        PROGRAM
        + """
home = os.getcwd()
os.environ["TMPDIR"] = home

def check(_):
    things = everything()
    inodes = {name[len("socket:["):-1] for name in opened().values() if name.startswith("socket:[")}
    with open("/proc/self/maps") as maps:
        places = [line.split(maxsplit=5)[5].strip() for line in maps if len(line.split()) > 5]
    for place in [*opened().values(), *places]:
        assert not place.startswith(("/dev/shm", home + "/")) or place.endswith("program.py"), place
    with open("/proc/self/net/unix") as sockets:
        mine = [line.split() for line in sockets if line.split()[6] in inodes]
    return [socket[7] if len(socket) > 7 else "" for socket in mine]

if __name__ == "__main__":
    before = os.listdir(home)
    with shoal.Pool(2) as pool:
        named = [name for name in [*check(None), *sum(pool.map(check, [0, 1], chunksize=1), [])] if name]
        assert os.listdir(home) == before
    assert named and all(name.startswith("@shoal-") for name in named), named
"""
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_nothing_is_inherited_by_a_program_that_is_started(run: Run) -> None:
    answer = run(
        PROGRAM
        + """
def started(_):
    things = everything()
    look = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd')))"
    command = [sys.executable, "-c", look]
    return subprocess.run(command, close_fds=False, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

if __name__ == "__main__":
    with shoal.Pool(2) as pool:
        print(started(None), pool.apply(started, (0,)), sep="", end="")
"""
    )
    # The fourth is that of the listing itself.
    assert (answer.stdout, answer.stderr) == ("[0, 1, 2, 3]\n" * 2, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_open_it_through_proc(run: Run) -> None:
    answer = run(
        PROGRAM
        + """
if __name__ == "__main__":
    things = everything()
    paths = [f"/proc/{os.getpid()}/fd/{fd}" for fd in segments()]
    for path in paths:
        os.close(os.open(path, os.O_RDWR))  # for this user it is there
    if (other := os.fork()) == 0:
        os.setgid(65534)
        os.setuid(65534)
        for path in paths:
            try:
                os.open(path, os.O_RDONLY)
            except PermissionError:
                continue
            os._exit(1)
        os._exit(0)
    print(len(paths) > 1, os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""
    )
    assert (answer.stdout, answer.stderr) == ("True 0\n", "")
