"""What a program defines in `__main__` goes to another process and comes back. Each program here has no guard."""

from __future__ import annotations

from collections.abc import Callable

Run = Callable[[str], str]


def test_an_instance_comes_back_as_one_of_the_programs_own_class(run_script: Run) -> None:
    printed = run_script("""
        from peer import Peer

        class Point:
            def __init__(self, x): self.x = x
            def moved(self): return Point(self.x + 1)

        with Peer() as peer:
            there = peer.call(Point.moved, Point(1))
            print(type(there) is Point, isinstance(there.moved(), Point), there.x)
    """)
    assert printed == "True True 2\n"


def test_so_does_one_of_a_class_with_slots(run_script: Run) -> None:
    printed = run_script("""
        from dataclasses import dataclass
        from typing import Generic, NamedTuple, TypeVar
        from peer import Peer

        class Base:
            __slots__ = "one"
            def __init__(self): self.one = 1

        class Point(Base, Generic[TypeVar("T")]):
            __slots__ = {"__x": "where", "y": "not set"}
            def __init__(self, x):
                super().__init__()
                self.__x = x
            def read(self): return self.one, self.__x, hasattr(self, "y"), hasattr(self, "__dict__")

        @dataclass(slots=True)
        class Record:
            name: str

        class Open(Point):
            pass

        class Pair(NamedTuple):
            a: int

        class Named(Pair):
            __slots__ = ()

        def extend(point):
            point.more = 5
            return point

        with Peer() as peer:
            for there in peer.call(lambda x: x, Point(2)), peer.call(Point, 3):
                print(type(there) is Point, there.read(), peer.call(Point.read, there))
            print(peer.call(Record, "new"), peer.call(Named, 1), vars(peer.call(extend, Open(4))))
            print(peer.call(lambda record: [n for n in ("name", "other") if hasattr(type(record), n)], Record("x")))
            try:
                peer.call(extend, Point(1))
            except AttributeError as error:
                print(error)
    """)
    assert printed == (
        "True (1, 2, False, False) (1, 2, False, False)\n"
        "True (1, 3, False, False) (1, 3, False, False)\n"
        "Record(name='new') Named(a=1) {'more': 5}\n"
        "['name']\n"
        "'Point' object has no attribute 'more'\n"
    )


def test_a_class_is_not_changed_by_instances_that_come_back(run_script: Run) -> None:
    printed = run_script("""
        from peer import Peer
        from shoal.serialize import dumps, loads

        class Settings:
            level = 1
            def get(self): return globals()["here"]

        def change(settings):
            Settings.level = 99
            return settings

        here = "the program's own globals"
        method = Settings.get
        with Peer() as peer:
            call = dumps((change, (Settings(),)))
            Settings.level = 2
            back = peer.run(call)
        print(type(back) is Settings, Settings.level, Settings.get is method, back.get())
        loads(dumps(Settings()))
        print(Settings.get is method)
    """)
    assert printed == "True 2 True the program's own globals\nTrue\n"


def test_the_other_process_learns_of_changes_to_a_class(run_script: Run) -> None:
    printed = run_script("""
        from peer import Peer

        class Settings:
            level = 1

        def level(): return Settings.level

        with Peer() as peer:
            print(peer.call(level))
            Settings.level = 2
            print(peer.call(level))
    """)
    assert printed == "1\n2\n"


def test_the_other_process_keeps_its_class_when_an_exception_of_it_is_tried_out(run_script: Run) -> None:
    printed = run_script("""
        from peer import Peer

        class Failure(Exception):
            log = []

        def fail(kept=[]):
            import builtins
            if not hasattr(builtins, "kept"):
                builtins.kept = Failure, Failure.log
            raise Failure("once more")

        def same():
            import builtins
            cls, log = builtins.kept
            return cls.log is log

        with Peer() as peer:
            try:
                peer.call(fail)
            except Failure as failure:
                print(repr(failure))
            print(peer.run(__import__("shoal.serialize").serialize.dumps((same, ()))))
    """)
    assert printed == "Failure('once more')\nTrue\n"


def test_functions_that_call_each_other_and_use_globals_travel(run_script: Run) -> None:
    printed = run_script("""
        import functools, math
        from peer import Peer

        SCALE = 10

        @functools.cache
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        def work(x): return math.floor(math.sqrt(x)) * SCALE, even(x)

        with Peer() as peer:
            print(peer.call(work, 16), peer.call(lambda x: work(x + 9), 16), peer.call(even, 7))
    """)
    assert printed == "(40, True) (50, False) False\n"


def test_enums_dataclasses_and_named_tuples_come_back_as_they_were(run_script: Run) -> None:
    printed = run_script("""
        import dataclasses, enum, typing
        from peer import Peer

        class Colour(enum.Enum):
            RED = 1

        @dataclasses.dataclass
        class Item:
            colour: Colour
            weights: list = dataclasses.field(default_factory=list)

        class Pair(typing.NamedTuple):
            left: Item
            right: int = 0

        def swap(pair): return Pair(Item(Colour.RED, [pair.right]), 5)

        with Peer() as peer:
            back = peer.call(swap, Pair(Item(Colour.RED), 3))
            print(back == Pair(Item(Colour.RED, [3]), 5), type(back) is Pair, back.left.colour is Colour.RED)
    """)
    assert printed == "True True True\n"


def test_annotations_with_type_variables_do_not_stop_a_function(run_script: Run) -> None:
    printed = run_script("""
        import functools
        from collections.abc import Callable
        from typing import NewType, ParamSpec, TypeVar, TypeVarTuple
        from peer import Peer

        P = ParamSpec("P")
        R = TypeVar("R")
        Ts = TypeVarTuple("Ts")
        Name = NewType("Name", str)

        def twice(f: Callable[P, R]) -> Callable[P, tuple[R, R]]:
            @functools.wraps(f)
            def both(*args: P.args, **kwargs: P.kwargs) -> tuple[R, R]:
                return f(*args, **kwargs), f(*args, **kwargs)
            return both

        @twice
        def greet(name: Name, *more: *Ts) -> Name:
            return Name("hello " + name)

        with Peer() as peer:
            print(peer.call(greet, "you"), peer.call(twice, greet)("me")[0][0])
    """)
    assert printed == "('hello you', 'hello you') hello me\n"


def test_the_main_module_of_a_spawned_process_counts_as_main(run_script: Run) -> None:
    printed = run_script("""
        import multiprocessing
        from peer import Peer

        class Point:
            x = 3
            def get(self): return self.x

        def child():
            with Peer() as peer:
                print(Point.__module__, peer.call(Point.get, Point()), type(peer.call(Point)) is Point, flush=True)

        if __name__ == "__main__":  # multiprocessing needs it
            process = multiprocessing.get_context("spawn").Process(target=child)
            process.start()
            process.join()
    """)
    assert printed == "__mp_main__ 3 True\n"


def test_an_exception_of_main_can_be_caught_as_itself(run_script: Run) -> None:
    printed = run_script("""
        from peer import Peer

        class Failure(Exception):
            pass

        def fail(x): raise Failure(x, "went wrong")

        with Peer() as peer:
            try:
                peer.call(fail, 7)
            except Failure as failure:
                print(failure.args, "in fail" in str(failure.__cause__), "peer.py" in str(failure.__cause__))
    """)
    assert printed == "(7, 'went wrong') True True\n"
