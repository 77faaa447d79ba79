"""What you can call here, you can call there: every kind of callable, from every kind of program, without a guard."""

import functools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import shoal
from tests.conftest import Run


@dataclass
class Line:
    """A class with methods of all kinds."""

    slope: float
    height: float = 0.0

    def at(self, x: float) -> float:
        return self.slope * x + self.height

    def __call__(self, x: float) -> float:
        return self.at(x)

    @classmethod
    def through(cls, x: float) -> "Line":
        return cls(x)

    @staticmethod
    def double(x: float) -> float:
        return 2 * x


def closure() -> Callable[[float], float]:
    factor = 3.0
    return lambda x: factor * x


def recursive() -> Callable[[int], int]:
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    return factorial


def decorated() -> Callable[[float], float]:
    def loud(function: Callable[[float], float]) -> Callable[[float], float]:
        @functools.wraps(function)
        def wrapper(x: float) -> float:
            return function(x) * 100

        return wrapper

    @loud
    def inner(x: float) -> float:
        return x + 1

    return inner


def local_class() -> Callable[[float], float]:
    class Local:
        def __init__(self, offset: float) -> None:
            self.offset = offset

        def __call__(self, x: float) -> float:
            return self.offset + x

    return Local(0.5)


FUNCTIONS = {
    "a builtin": abs,
    "a function of a C module": math.sqrt,
    "a type": str,
    "a class": Line,
    "a lambda": lambda x: x + 1,
    "a closure": closure(),
    "a recursive local function": recursive(),
    "a decorated function": decorated(),
    "a partial": functools.partial(pow, 2),
    "a partial of a lambda": functools.partial(lambda x, y: x - y, y=1),
    "a bound method": Line(2, 1).at,
    "a bound method of a builtin object": [1, 2, 3, 4, 5].__getitem__,
    "a class method": Line.through,
    "a static method": Line.double,
    "a callable object": Line(3),
    "an object of a local class": local_class(),
    "an operator": operator.methodcaller("__add__", 4),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_it_can_be_called_in_a_worker(pool: shoal.Pool, kind: str) -> None:
    function: Callable[[Any], Any] = FUNCTIONS[kind]  # type: ignore[assignment]
    assert pool.apply(function, (4,)) == function(4)
    assert pool.map(function, [1, 2, 3]) == [function(x) for x in (1, 2, 3)]
    assert list(pool.imap(function, [1, 2, 3])) == [function(x) for x in (1, 2, 3)]


def test_a_function_can_be_an_argument_and_a_result(pool: shoal.Pool) -> None:
    twice = pool.apply(lambda function: lambda x: function(function(x)), (lambda x: x + 10,))
    assert twice(1) == 21


def test_a_closure_is_sent_as_it_is_at_each_call(pool: shoal.Pool) -> None:
    offset, seen = 1, [0]
    assert pool.map(lambda x: x + offset + len(seen), [1, 2]) == [3, 4]

    def shifted(x: int) -> int:
        return x + offset + len(seen)

    assert pool.apply(shifted, (0,)) == 2
    offset = 10
    assert pool.apply(shifted, (0,)) == 11
    seen.append(0)
    assert pool.apply(shifted, (0,)) == 12


def test_an_object_is_sent_as_it_is_at_each_call(pool: shoal.Pool) -> None:
    line = Line(1)
    assert pool.apply(line.at, (5,)) == 5
    line.slope = 2
    assert pool.apply(line.at, (5,)) == 10


# A program without a guard, whose functions and classes live in __main__ and refer to one another.
PROGRAM = """
import shoal
from dataclasses import dataclass

factor = 2

@dataclass
class Point:
    x: int

    def moved(self, by):
        return Point(self.x + by)

def scaled(x):
    return factor * helper(x)

def helper(x):
    return x + 1

def countdown(n):
    return [n] + (countdown(n - 1) if n else [])

pool = shoal.Pool(2)
print(pool.map(scaled, [1, 2, 3]))
factor = 3
print(pool.map(scaled, [1, 2, 3]))
print(pool.apply(countdown, (3,)))
print(pool.map(lambda x: x * factor, [1, 2]))
print(pool.apply(Point(1).moved, (2,)) == Point(3))
print(all(type(point) is Point for point in pool.map(Point, range(3))))
pool.close()
pool.join()
"""

ANSWERS = "[4, 6, 8]\n[6, 9, 12]\n[3, 2, 1, 0]\n[3, 6]\nTrue\nTrue\n"


@pytest.mark.parametrize("via", ["script", "-c", "stdin"])
def test_functions_and_classes_of_the_main_program_travel(run: Run, via: str) -> None:
    program = run(PROGRAM, via=via)
    assert (program.returncode, program.stdout, program.stderr) == (0, ANSWERS, "")


def test_so_do_those_of_the_interactive_interpreter(run: Run) -> None:
    """Typed in line by line, in the form in which the interpreter wants them: an empty line ends a block."""
    source = "\n".join(line for line in blocks(PROGRAM.strip().splitlines()))
    program = run(source + "\n", via="repl")
    assert program.returncode == 0
    assert program.stdout == ANSWERS
    assert "Error" not in program.stderr


def blocks(lines: list[str]) -> Iterator[str]:
    """Leaves out empty lines within a block, and puts one at its end."""
    lines = [line for line in lines if line]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        yield line
        if line.startswith(" ") and not following.startswith(" "):
            yield ""


def test_functions_of_a_module_beside_the_script_are_found(run: Run, tmp_path: Any) -> None:
    (tmp_path / "beside.py").write_text("def triple(x):\n    return 3 * x\n")
    program = run(
        """
        import shoal
        from beside import triple
        with shoal.Pool(2) as pool:
            print(pool.map(triple, [1, 2]))
        """
    )
    assert (program.stdout, program.stderr) == ("[3, 6]\n", "")


def test_the_main_program_runs_once_not_in_each_worker(run: Run) -> None:
    program = run(
        """
        import shoal
        print("top of the program")

        def f(x):
            return x

        with shoal.Pool(2) as pool:
            pool.map(f, range(10))
        """
    )
    assert (program.stdout, program.stderr) == ("top of the program\n", "")
