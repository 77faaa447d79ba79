"""Who is let in by a process that shares memory, and what becomes of the words of who is not: see docs/security.md."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.progress.door import door
from tests.conftest import Run

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# A handle in a pickle: these bytes, the domain's name and its token.
MAGIC = b"shl1"

# A stranger: connects to the broker, or to the door that bars are shown behind, says something and tells what it hears.
STRANGER = """
import os, socket, sys
name, kind, user, answers, words = bytes.fromhex(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5:]
if user >= 0:
    os.setgid(user)
    os.setuid(user)
stranger = socket.socket(socket.AF_UNIX, getattr(socket, kind))
stranger.settimeout(100)
stranger.connect(name)
try:
    for word in words:
        stranger.sendall(bytes.fromhex(word))
except BrokenPipeError:
    pass  # closed before it had said it
heard = []
while len(heard) < answers and (not heard or heard[-1]):
    try:
        heard.append(stranger.recv(1000))
    except ConnectionResetError:
        pass  # closed before it was heard: that is told once, and before what was said to it
print(*(word.hex() for word in heard if word))
"""

NOBODY = 65534
REFUSED = "05"


class Bomb:
    """What a stranger would like to have unpickled: makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def broker(thing: Any) -> tuple[bytes, bytes]:
    """The name of its process's broker, and the token."""
    pickled = pickle.dumps(thing)
    at = pickled.index(MAGIC) + len(MAGIC)
    return b"\0shoal-" + pickled[at : at + 16].hex().encode(), pickled[at + 16 : at + 32]


def stranger(run: Run, name: bytes, kind: str, *words: bytes, user: int = -1, answers: int = 100) -> str:
    """What a stranger hears, until the connection is closed or it has had so many answers."""
    program = run(STRANGER, name.hex(), kind, str(user), str(answers), *(word.hex() for word in words))
    assert (program.returncode, program.stderr) == (0, "")
    return program.stdout.strip()


def to_the_door(path: Path) -> bytes:
    """A message to who draws bars: a length and a pickle."""
    data = pickle.dumps(Bomb(path))
    return len(data).to_bytes(4, "little") + data


@as_root
def test_another_user_is_shown_the_door_though_it_knows_the_token(run: Run, tmp_path: Path) -> None:
    name, token = broker(shoal.Counter())
    assert stranger(run, name, "SOCK_SEQPACKET", b"\x01" + token, user=NOBODY) == REFUSED
    address = door().address
    message = to_the_door(tmp_path / "unpickled")
    assert stranger(run, address.name, "SOCK_STREAM", address.token, message, user=NOBODY) == ""
    assert not (tmp_path / "unpickled").exists()


@as_root
def test_another_user_who_takes_the_name_of_a_process_that_has_ended_is_not_told_the_token(run: Run) -> None:
    counter = shoal.Counter()
    name, token = broker(counter)
    program = """
import os, pickle, socket, sys
import shoal
handle, free = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])
pickle.loads(pickle.dumps(shoal.Counter()))  # whatever it takes is imported
listens, told = os.pipe()
if (squatter := os.fork()) == 0:
    os.setgid(65534)
    os.setuid(65534)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(b"\\0shoal-" + free.hex().encode())
    listener.listen()
    os.write(told, b"listens")
    os.write(1, b"heard %r\\n" % listener.accept()[0].recv(100))
    os._exit(0)
os.close(told)
assert os.read(listens, 100) == b"listens"  # or there would be nobody to connect to
try:
    pickle.loads(handle)
except shoal.ShoalError as error:
    os.write(1, f"{error}\\n".encode())  # at once: the other writes there, too
os.waitpid(squatter, 0)
"""
    free = os.urandom(16)
    handle = pickle.dumps(counter).replace(bytes.fromhex(name.removeprefix(b"\0shoal-").decode()), free)
    assert token in handle
    answer = run(program, handle.hex(), free.hex())
    assert answer.stderr == ""
    heard, refused = sorted(answer.stdout.splitlines())
    assert heard == "heard b''" and "refuses this one" in refused


def test_who_has_not_shown_the_token_is_not_let_in(run: Run, tmp_path: Path) -> None:
    name, token = broker(shoal.Counter())
    wrong = bytes(byte ^ 1 for byte in token)
    create = b"\x02" + bytes(8 + 8 + 4 + 1)
    for words in ([b"\x01" + wrong], [b"\x03" + bytes(4)], [create], [b"\x05" + wrong + bytes(6)]):
        assert stranger(run, name, "SOCK_SEQPACKET", *words) == REFUSED, words
    address = door().address
    wrong = bytes(byte ^ 1 for byte in address.token)
    assert stranger(run, address.name, "SOCK_STREAM", wrong, to_the_door(tmp_path / "unpickled")) == ""
    assert not (tmp_path / "unpickled").exists()


def test_the_broker_unpickles_nothing_whoever_says_it(run: Run, tmp_path: Path) -> None:
    counter = shoal.Counter()
    name, token = broker(counter)
    bomb = pickle.dumps(Bomb(tmp_path / "unpickled"))
    for words in ([bomb], [b"\x01" + token, bomb]):
        assert stranger(run, name, "SOCK_SEQPACKET", *words, answers=len(words)).endswith(REFUSED)
    assert not (tmp_path / "unpickled").exists()


def test_who_shows_the_token_can_have_things_unpickled(run: Run, tmp_path: Path) -> None:
    # That is the limit of what is promised: the token lets a process do what this one may do.
    address = door().address
    stranger(run, address.name, "SOCK_STREAM", address.token, to_the_door(tmp_path / "unpickled"))
    assert (tmp_path / "unpickled").exists()


def test_a_number_that_nobody_can_have_ends_nothing(run: Run) -> None:
    counter = shoal.Counter()
    name, token = broker(counter)
    for holder in (511, 512, 60_000, 65_535):
        claim = holder.to_bytes(2, "little") + bytes(4)
        assert stranger(run, name, "SOCK_SEQPACKET", b"\x05" + token + claim) == REFUSED
        heard = stranger(run, name, "SOCK_SEQPACKET", b"\x01" + token, b"\x06" + claim, answers=2)
        assert heard.startswith("01") and heard.endswith(REFUSED)
    with shoal.Pool(1) as pool:
        assert pool.apply(abs, (-3,)) == 3
