"""Who is let in by the process that has the shared memory: processes of its own user that were given a handle."""

import os
import pickle
import subprocess
import sys
from typing import Any

import pytest

import shoal
from tests.conftest import Run
from tests.pool.support import descriptors, eventually

# A handle in a pickle: these bytes, the domain's name and its token.
MAGIC = b"shl1"


def name_and_token(thing: Any) -> tuple[bytes, bytes]:
    pickled = pickle.dumps(thing)
    at = pickled.index(MAGIC) + len(MAGIC)
    return pickled[at : at + 16], pickled[at + 16 : at + 32]


# A program that talks to the broker: not this process, as a guest is gone when its process is.
PRELUDE = """
import array, random, socket, sys
name, token = (bytes.fromhex(word) for word in sys.argv[1:])
def connected():
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broker.settimeout(100)
    broker.connect(b"\\0shoal-" + name.hex().encode())
    return broker
"""


def talk(run: Run, thing: Any, source: str) -> None:
    program = run(PRELUDE + source, *(word.hex() for word in name_and_token(thing)))
    assert (program.returncode, program.stderr) == (0, "")


def resolves(thing: Any) -> bool:
    program = "import pickle, sys; pickle.load(sys.stdin.buffer).add()"
    before = thing.value
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(thing), check=True, timeout=150)
    return bool(thing.value == before + 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_refused_with_a_clear_error() -> None:
    counter = shoal.Counter()
    program = """
import os, pickle, signal, sys, shoal, shoal.errors
pickled = sys.stdin.buffer.read()
# The other user may not be able to import anything.
pickle.loads(pickle.dumps(shoal.Counter()))
os.setgid(65534)
os.setuid(65534)
try:
    pickle.loads(pickled)
except shoal.ShoalError as error:
    print(type(error).__name__, error)
"""
    before = descriptors()
    command = [sys.executable, "-c", program]
    answers = [subprocess.run(command, input=pickle.dumps(counter), capture_output=True, timeout=150) for _ in range(3)]
    for answer in answers:
        assert answer.stderr == b""
        assert answer.stdout.startswith(b"ShoalError the process that has the shared memory")
        assert b"refuses this one: it lets in processes of its own user" in answer.stdout
    assert eventually(lambda: descriptors() <= before)
    assert resolves(counter)


def test_a_process_without_the_token_is_refused(run: Run) -> None:
    counter = shoal.Counter()
    _, token = name_and_token(counter)
    other = bytes([token[0] ^ 1]) + token[1:]
    program = f"""
import pickle, shoal
try:
    pickle.loads({pickle.dumps(counter).replace(token, other)!r})
except shoal.ShoalError as error:
    print(error)
"""
    before = descriptors()
    answer = run(program)
    assert "refuses this one" in answer.stdout and answer.stderr == ""
    assert eventually(lambda: descriptors() <= before)
    assert resolves(counter)


def test_garbage_is_an_error_for_the_sender_alone(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    counter = shoal.Counter()
    before = descriptors()
    source = """
dice = random.Random(0)
for round in range(300):
    with connected() as guest:
        if round % 2:
            guest.send(b"\\x01" + token)
            assert guest.recv(100)[:1] == b"\\x01"
        garbage = dice.randbytes(dice.choice([1, 2, 3, 10, 100, 60_000, 100_000]))
        guest.send(garbage)
        # An answer, or the end, but not silence: unless it looks like what has no answer.
        if garbage[:1] not in b"\\x06":
            assert guest.recv(100)[:1] != b"\\x01"
"""
    talk(run, counter, source)
    assert eventually(lambda: descriptors() <= before)
    assert resolves(counter)
    assert capfd.readouterr().err == ""


def test_descriptors_that_nobody_asked_for_are_closed(run: Run) -> None:
    counter = shoal.Counter()
    before = descriptors()
    source = """
with open("/dev/null") as file:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()] * 100))]
    for packet in (b"nonsense", b"\\x01" + token, b"\\x06" + bytes(6)):
        with connected() as guest:
            guest.sendmsg([packet], rights)
"""
    talk(run, counter, source)
    assert eventually(lambda: descriptors() <= before)
    assert resolves(counter)


def test_who_asks_and_does_not_listen_keeps_nobody_waiting(run: Run) -> None:
    counter = shoal.Counter()
    source = """
with connected() as guest:
    guest.send(b"\\x01" + token)
    guest.setblocking(False)
    try:
        for _ in range(100_000):
            guest.send(b"\\x03" + bytes(4))
    except OSError:
        pass  # Its queue is full, or the connection is closed: both as it should be.
    with connected() as another:
        another.send(b"\\x01" + token)
        assert another.recv(100)[:1] == b"\\x01"
"""
    talk(run, counter, source)
    assert resolves(counter)
