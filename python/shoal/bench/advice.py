"""From figures to sentences: threads, processes or shared memory for which job, by what was measured here."""

from collections.abc import Callable, Iterable, Mapping

from .peers import SHOAL

THREADS = "threads"
MULTIPROCESSING = "multiprocessing"

# Below this gain a job is not worth a pool; and processes must gain so much more than threads to be worth their price.
WORTH_IT = 1.2
WORTH_MORE = 1.15
# A task that works ten times as long as it travels loses a tenth to the way.
WORTH_THE_WAY = 10

Medians = Mapping[str, Mapping[str, float]]
"""The median of each contender, by the key of the figure."""


def advice(medians: Medians) -> list[str]:
    """A sentence or more for each kind of job of which there are figures, in the units of `shoal.bench.groups`."""
    parts: tuple[Callable[[Medians], str], ...] = (
        lambda of: _job("Python code", of.get("job-python", {})),
        lambda of: _job("numpy on large arrays", of.get("job-numpy", {})),
        lambda of: _job("Waiting, for servers or disks", of.get("job-waiting", {})),
        _small_tasks,
        _arguments,
        _results,
        _talking,
        _starting,
        _dying,
    )
    return [said for part in parts if (said := part(medians))]


def _job(what: str, gains: Mapping[str, float]) -> str:
    """Threads or processes, by how many times as fast as a loop they were."""
    # Shoal for the processes, where it was measured: the sentence is about the kind, the table about the tools.
    others = [name for name in gains if name != THREADS]
    if THREADS not in gains or not others:
        return ""
    name = SHOAL if SHOAL in gains else max(others, key=lambda other: gains[other])
    threads, processes = gains[THREADS], gains[name]
    found = f"threads were {_times(threads)} as fast as a loop, processes ({name}) {_times(processes)}"
    if max(threads, processes) < WORTH_IT:
        return (
            f"{what}: {found}. Neither had a second core for itself: "
            "measure again when the machine is idle, and see what `shoal doctor` says of CPUs."
        )
    if processes >= WORTH_MORE * threads:
        return f"{what}: processes. {found[0].upper()}{found[1:]}."
    return f"{what}: threads will do, as nothing has to travel. {found[0].upper()}{found[1:]}."


def _small_tasks(medians: Medians) -> str:
    """What a task costs by itself, from tasks a second, in thousands."""
    rates = medians.get("map-1", {})
    costs = {name: 1e-3 / rates[name] for name in (SHOAL, THREADS, MULTIPROCESSING) if rates.get(name, 0) > 0}
    if not costs:
        return ""
    name, cost = next(iter(costs.items()))
    return (
        f"Small tasks: one for each item costs {_listed(costs)}. A function that takes less than "
        f"{_duration(WORTH_THE_WAY * cost)} is better called for many items at a time: "
        f"leave out chunksize= in {name}'s map, or use numpy."
    )


def _arguments(medians: Medians) -> str:
    """Shared memory or not, from milliseconds for 100 MB and microseconds for an array that is shared already."""
    plain = medians.get("argument-100mb", {})
    costs = {name: plain[name] * 1e-3 for name in (SHOAL, MULTIPROCESSING) if name in plain}
    if SHOAL not in costs:
        return ""
    said = f"Large arrays as arguments: 100 MB take {_listed(costs)}; threads move nothing."
    shared = medians.get("argument-shared", {}).get(SHOAL)
    if shared is not None:
        said += (
            f" A shoal.array of any size takes {_duration(shared * 1e-6)}: shared memory for what many tasks look at "
            f"or write into, and for tasks that work less than {_duration(WORTH_THE_WAY * costs[SHOAL])} on 100 MB."
        )
    return said


def _results(medians: Medians) -> str:
    """From milliseconds beyond making and reading; noise may bring them below zero."""
    ways = medians.get("result-64mb-transport", {})
    costs = {name: max(ways[name], 0.0) * 1e-3 for name in (SHOAL, MULTIPROCESSING) if name in ways}
    if not costs:
        return ""
    return f"Large arrays as results: the way of 64 MB takes {_listed(costs)}."


def _talking(medians: Medians) -> str:
    """From millions of items a second, and nanoseconds of a lock."""
    said = []
    rates = medians.get("queue-small", {})
    best = {
        tool: max((rate for name, rate in rates.items() if name.split()[0] == tool), default=0.0)
        for tool in (SHOAL, MULTIPROCESSING)
    }
    if items := {name: 1e-6 / rate for name, rate in best.items() if rate > 0}:
        said.append(f"an item takes {_listed(items)} through a queue")
    locks = medians.get("lock", {})
    if held := {name: locks[name] * 1e-9 for name in (SHOAL, MULTIPROCESSING) if name in locks}:
        said.append(f"taking and giving back a lock {_listed(held)}")
    return f"Tasks that talk to each other: {'; '.join(said)}. Talk seldom, in large pieces." if said else ""


def _starting(medians: Medians) -> str:
    """From milliseconds."""
    firsts = medians.get("first-result", {})
    if not firsts:
        return ""
    costs = {name: value * 1e-3 for name, value in firsts.items()}
    least = min(costs.values())
    return (
        f"Short programs: from the start of Python to the first result it takes {_listed(costs)}. "
        f"A job of less than {_duration(2 * least)} is done sooner without a pool."
    )


def _dying(medians: Medians) -> str:
    """From milliseconds."""
    replaced = medians.get("death-replaced", {})
    seen = medians.get("death-seen", {})
    said = []
    if SHOAL in seen and SHOAL in replaced:
        said.append(
            f"shoal fails its task after {_duration(seen[SHOAL] * 1e-3)} and goes on with another worker, "
            f"which gave a result {_duration(replaced[SHOAL] * 1e-3)} after the death"
        )
    if "executor" in replaced:
        said.append(
            "a ProcessPoolExecutor is broken, with all that was queued; "
            f"a new one gave a result {_duration(replaced['executor'] * 1e-3)} after the death"
        )
    return f"When a process is killed: {'; '.join(said)}." if said else ""


def _listed(costs: Mapping[str, float]) -> str:
    """ "2 µs with shoal, 100 µs with threads"."""
    return ", ".join(f"{_duration(cost)} with {name}" for name, cost in costs.items())


def _times(gain: float) -> str:
    return f"{gain:.1f} ×" if gain < 10 else f"{gain:.0f} ×"


def _duration(seconds: float) -> str:
    """Two significant digits: a look, not a measurement."""
    if seconds <= 0:
        return "no time that can be measured"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9)):
        value = seconds * factor
        if value >= 1 or unit == "ns":
            return f"{value:.0f} {unit}" if value >= 9.95 or value < 0.05 else f"{value:.1f} {unit}"
    raise AssertionError("unreachable: the last unit fits all")


def paragraphs(said: Iterable[str], width: int) -> str:
    """The advice for a terminal: an entry each, wrapped."""
    import textwrap

    return "\n".join(
        textwrap.fill(text, max(width, 60), initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
        for text in said
    )
