"""Progress bars that go anywhere.

`shoal.tqdm` is tqdm, with all of its arguments and methods. A bar can be an argument, sit in an object or a closure, or
be put on a queue; wherever it arrives it is the same bar, and `update` is one atomic addition. One process draws it, in
one place: the one that made it, or for bars made in workers, the pool's client.

    >>> import shoal
    >>> with shoal.Pool() as pool, shoal.tqdm(total=1000, desc="frames") as bar:
    ...     def work(frame):
    ...         bar.update()
    ...     _ = pool.map(work, range(1000))

bar.py          the bars themselves, wherever they are drawn
auto.py         the class that tqdm chooses
shared.py       what a bar shows, in shared memory
travel.py       how bars are pickled, and how ordinary ones of tqdm come to travel
screen.py       the thread that draws
door.py         where a process's screen is to be found
line.py         the way to the screen of another process
output.py       what workers print while bars are shown
ordinary.py     the bars of tqdm that workers make
maps.py         the bars of `Pool.map(..., progress=True)`
kinds.py        bars of one kind:
std.py, notebook.py, rich.py    as in tqdm's modules of these names

How it works is told in docs/design/progress.md. Importing this package imports nothing: workers need but a part of it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tqdm.std import tqdm as _ordinary

    from shoal.progress.bar import tqdm, trange

    # What the pool's methods take as `progress`.
    Progress = bool | dict[str, Any] | _ordinary[Any] | None

__all__ = ["tqdm", "trange"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'shoal.progress' has no attribute {name!r}")
    from shoal.progress import bar

    value: object = getattr(bar, name)
    globals()[name] = value
    return value
