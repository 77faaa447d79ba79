"""What a program may send to its workers, as rows of a table: the lines that make it, and what must hold then.

The lines run in a `__main__` that has the names of `PROLOGUE`; `test_programs` puts them into every kind of program.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One thing that travels, or is refused."""

    name: str
    setup: str
    check: str


PROLOGUE = """\
import collections, contextlib, dataclasses, enum, functools, itertools, json, logging, math, operator, os, re
import socket, sys, tempfile, threading, time, types, typing, weakref
import numpy
import shoal
pool = shoal.Pool(2)
def refused(call):
    try:
        return f'not refused: {call()}'
    except shoal.SerializationError as error:
        return str(error)
"""

CALLABLES = [
    Row("function", "def double(x): return 2 * x", "pool.map(double, [1, 2]) == [2, 4]"),
    Row("function of a global", "factor = 3\ndef scaled(x): return factor * x", "pool.map(scaled, [1, 2]) == [3, 6]"),
    Row("function of a changed global", "factor = 5", "pool.map(scaled, [1, 2]) == [5, 10]"),
    Row("recursive function", "def fac(n): return 1 if n < 2 else n * fac(n - 1)", "pool.apply(fac, (5,)) == 120"),
    Row("lambda", "add = lambda x: x + 1", "pool.map(add, [1, 2]) == [2, 3]"),
    Row("closure", "def power(n):\n    return lambda x: x ** n", "pool.map(power(2), [2, 3]) == [4, 9]"),
    Row("partial", "", "pool.map(functools.partial(pow, 2), [2, 3]) == [4, 8]"),
    Row("partial of a lambda", "", "pool.apply(functools.partial(lambda x, y: x - y, y=1), (3,)) == 2"),
    Row(
        "decorated function",
        """\
def tenfold(function):
    @functools.wraps(function)
    def wrapper(*args):
        return 10 * function(*args)
    return wrapper
@tenfold
def plus(x, y):
    return x + y""",
        "pool.starmap(plus, [(1, 2), (3, 4)]) == [30, 70] and plus.__name__ == 'plus'",
    ),
    Row("cached function", "@functools.cache\ndef slow(x): return x + 1", "pool.map(slow, [1, 1]) == [2, 2]"),
    Row(
        "bound method",
        """\
class Line:
    def __init__(self, slope): self.slope = slope
    def at(self, x): return self.slope * x
    def __call__(self, x): return self.at(x)
    @classmethod
    def steep(cls, x): return cls(100).at(x)
    @staticmethod
    def flat(x): return 0""",
        "pool.map(Line(3).at, [1, 2]) == [3, 6]",
    ),
    Row("callable object", "", "pool.map(Line(3), [1, 2]) == [3, 6]"),
    Row("class method", "", "pool.map(Line.steep, [1, 2]) == [100, 200]"),
    Row("static method", "", "pool.map(Line.flat, [1, 2]) == [0, 0]"),
    Row("class", "", "[type(line) is Line for line in pool.map(Line, [1, 2])] == [True, True]"),
    Row("built-in", "", "pool.map(abs, [-1, 2]) == [1, 2]"),
    Row("function of a C module", "", "pool.map(math.sqrt, [1, 4]) == [1, 2]"),
    Row("method of a built-in type", "", "pool.map(str.upper, ['a', 'b']) == ['A', 'B']"),
    Row("operator", "", "pool.map(operator.itemgetter(1), ['ab', 'cd']) == ['b', 'd']"),
    Row("numpy ufunc", "", "pool.map(numpy.sqrt, [1.0, 4.0]) == [1.0, 2.0]"),
    Row("function that is a result", "", "pool.apply(lambda n: lambda x: x + n, (2,))(3) == 5"),
    Row("generator as the input of a map", "", "pool.map(abs, (x for x in (-1, 2))) == [1, 2]"),
]

OBJECTS = [
    Row("instance", "", "type(pool.apply(lambda line: line, (Line(3),))) is Line"),
    Row("instance in a container", "", "pool.apply(lambda d: d['a'][0].at(2), ({'a': [Line(4)]},)) == 8"),
    Row(
        "dataclass",
        "@dataclasses.dataclass(frozen=True)\nclass Point:\n    x: int\n    y: int = 0",
        "pool.map(Point, [1, 2]) == [Point(1), Point(2)]",
    ),
    Row("enum", "class Colour(enum.Enum):\n    RED = 1", "pool.apply(lambda c: c, (Colour.RED,)) is Colour.RED"),
    Row("named tuple", "Pair = collections.namedtuple('Pair', 'a b')", "pool.apply(Pair, (1, 2)) == Pair(1, 2)"),
    Row(
        "exception",
        """\
class Failure(Exception):
    pass
def fail(): raise Failure('so it is')
try:
    pool.apply(fail)
except Failure as error:
    seen = error""",
        "str(seen) == 'so it is' and 'in fail' in str(seen.__cause__)",
    ),
    Row("module", "", "pool.apply(lambda module: module.pi, (math,)) == math.pi"),
    Row("regular expression", "", "pool.apply(lambda r: r.findall('abab'), (re.compile('ab'),)) == ['ab', 'ab']"),
    Row("generic alias", "", "pool.apply(lambda t: t, (list[Line],)) == list[Line]"),
    Row(
        "weak reference",
        """\
class Node:
    def __init__(self, parent=None): self.up, self.below = parent and weakref.ref(parent), []
root = Node()
root.below.append(Node(root))""",
        "pool.apply(lambda root: root.below[0].up() is root, (root,))",
    ),
    Row("logger", "", "pool.apply(lambda logger: logger.name, (logging.getLogger('a.b'),)) == 'a.b'"),
    Row(
        "handler",
        "handler = logging.StreamHandler(sys.stdout)",
        "pool.apply(lambda h: (h.stream is sys.stdout, h.lock is not None), (handler,)) == (True, True)",
    ),
    Row(
        "open file",
        """\
with open('lines.txt', 'w') as file:
    print('one', 'two', 'three', sep='\\n', file=file)
file = open('lines.txt')
line = file.readline()""",
        "pool.apply(lambda f: f.read(), (file,)) == 'two\\nthree\\n' and file.readline() == 'two\\n'",
    ),
    Row(
        "memmap",
        """\
mapped = numpy.memmap('mapped', 'i4', 'w+', shape=(10,))
def write(part): part[:] = 7""",
        "pool.apply(write, (mapped[2:6:2],)) is None and mapped.tolist() == [0, 0, 7, 0, 7, 0, 0, 0, 0, 0]",
    ),
    Row(
        "shared array, lock and counter",
        """\
counts, lock, done = shoal.zeros(1), shoal.Lock(), shoal.Counter()
def tally(x):
    with lock:
        counts[0] += x
    done.add()""",
        "pool.map(tally, [1, 2, 3], 1) and (counts[0], done.value) == (6, 3)",
    ),
    Row(
        "object with a lock",
        """\
class Guarded:
    def __init__(self): self.lock, self.total = threading.Lock(), shoal.zeros(1)
    def add(self, n):
        for _ in range(n):
            with self.lock:
                before = self.total[0]
                time.sleep(0)
                self.total[0] = before + 1
guarded = Guarded()
done = pool.map(guarded.add, [50] * 4, 1)""",
        "guarded.total[0] == 200 and type(guarded.lock) is type(threading.Lock())",
    ),
    Row(
        "object that holds its pool",
        """\
class Runner:
    def __init__(self): self.pool = pool
    def run(self): return self.pool.map(self.work, [1, 2])
    def work(self, x): return x + 1""",
        "Runner().run() == [2, 3]",
    ),
]

REFUSALS = [
    Row(
        "socket",
        """\
class Extractor:
    def extract(self, other): pass
class Connected:
    pass
extractor = Extractor()
extractor.conn = Connected()
extractor.conn.sock = socket.socket()
message = refused(lambda: pool.apply(extractor.extract, (extractor,)))
argument = refused(lambda: pool.apply(Extractor().extract, (extractor,)))
extractor.conn.sock.close()""",
        """[message, argument] == ["Extractor.extract: self.conn.sock: cannot pickle 'socket' object",
            "argument 0 of Extractor.extract: self.conn.sock: cannot pickle 'socket' object"]""",
    ),
    Row("generator in an argument", "", "\"['a']: cannot pickle 'generator'\" in refused("
        "lambda: pool.apply(len, ({'a': (x for x in ())},)))"),
    Row("running thread", "", "\"cannot pickle '_MainThread' object\" in refused("
        "lambda: pool.apply(id, (threading.main_thread(),)))"),
    Row("result", "", "\"cannot pickle 'frame' object\" in refused(lambda: pool.apply(sys._getframe))"),
]  # fmt: skip

ROWS = [*CALLABLES, *OBJECTS, *REFUSALS]
