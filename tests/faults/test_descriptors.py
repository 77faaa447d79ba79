"""A client whose table of descriptors is full: what needs one fails and says so, and goes on when there are some again."""

from tests.conftest import Run

FILLED = """
import contextlib, errno, os, resource
import shoal

@contextlib.contextmanager
def filled():
    \"\"\"No descriptor is left.\"\"\"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    hoarded = []
    try:
        while True:
            hoarded.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    try:
        yield
    finally:
        for descriptor in hoarded:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""


def test_a_worker_is_told_that_its_client_can_make_no_memory(run: Run) -> None:
    source = """
def make():
    return float(shoal.full(300_000, 1.0).sum())

with shoal.Pool(1) as pool:
    assert pool.apply(abs, (-1,)) == 1
    with filled():
        try:
            pool.apply(make)
        except OSError as error:
            print(errno.errorcode[error.errno], error.strerror)
    print(pool.apply(make))
"""
    program = run(FILLED + source)
    assert program.stderr == ""
    first, second = program.stdout.splitlines()
    assert first.startswith("EMFILE the process that makes shared memory for this one could not: Too many open files")
    assert second == "300000.0"
