"""What tools do when something goes wrong, in the same programs: `make bench-faults`.

Every fault is met by every tool, each time in processes of its own. What is printed is a table for
`docs/reliability.md`, where `--write` puts it.
"""

import argparse
import platform
import signal
import sys
from importlib import metadata

from .. import ROOT
from .cell import Story, run, run_here
from .faults import FAULTS, OTHERS, Fault
from .tools import TOOLS, Tool

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- the table of faults: made by make bench-faults -->\n", "<!-- the end of the table -->\n"
LIMIT_S = 20.0
MIB = 1 << 20


def main() -> int:
    """Runs what is asked for and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fault_table", description=__doc__)
    parser.add_argument("--only", type=_names, help=f"faults, by commas: {', '.join(FAULTS)}")
    parser.add_argument("--tools", type=_names, help=f"tools, by commas: {', '.join(TOOLS)}")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds after which a program hangs")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    parser.add_argument("--verbose", action="store_true", help="print what each program told, to stderr")
    parser.add_argument("--cell", nargs=2, metavar=("FAULT", "TOOL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        run_here(*options.cell)
        return 0
    for name in options.only or ():
        if name not in FAULTS:
            parser.error(f"argument --only: no fault is called {name!r}; there are {', '.join(FAULTS)}")
    for name in options.tools or ():
        if name not in TOOLS:
            parser.error(f"argument --tools: no tool is called {name!r}; there are {', '.join(TOOLS)}")
    faults = [FAULTS[name] for name in options.only or FAULTS]
    tools = [TOOLS[name] for name in options.tools or TOOLS]
    tools = [tool for tool in tools if tool.installed]

    lines = []
    for fault in faults:
        cells = []
        for tool in tools:
            story = run(fault, tool, options.limit)
            cells.append(_words(fault, story))
            if options.verbose:
                print(f"{fault.name}, {tool.name}: {story.told}, {story.seconds:.1f} s", file=sys.stderr, flush=True)
        lines.append(f"| {fault.title} | {' | '.join(cells)} |")
        if sys.stderr.isatty():
            print(f"\r\033[K{fault.name}", end="", file=sys.stderr, flush=True)
    table = "\n".join([f"| | {' | '.join(_title(tool) for tool in tools)} |", "|---" * (len(tools) + 1) + "|", *lines])
    release = platform.release().split("-")[0]
    table += f"\n\nPython {platform.python_version()}, Linux {release}. "
    table += f"What had not ended after {options.limit:g} s hangs.\n"
    print(table)
    if options.write:
        page = PAGE.read_text()
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    return 0


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _title(tool: Tool) -> str:
    try:
        return f"{tool.title} {metadata.version(tool.module)}"
    except metadata.PackageNotFoundError:
        return tool.title


def _words(fault: Fault, story: Story) -> str:
    """A story in the few words that a cell has room for."""
    told = story.told
    if "unsupported" in told:
        return str(told["unsupported"])
    said = _signalled(fault, story) if fault.sent is not None else _met(told, story)
    if story.orphans:
        said.append(f"**{story.orphans} processes left**")
    if story.left >= MIB:
        said.append(f"**{story.left // MIB} MiB left**")
    return "; ".join(said)


def _met(told: dict[str, object], story: Story) -> list[str]:
    """What the caller of the task got; the other tasks; what came after; and the end."""
    said = []
    task, others, after = told.get("task"), told.get("others"), told.get("afterwards")
    begun = task is not None or "others" in told
    if task is not None:
        said.append(f"result: {told['note']}" if "note" in told else "result" if task == "ok" else f"`{task}`")
    elif "raised" in told and not begun:
        return [f"`{told['raised']}`"]
    else:
        said.append("**hangs**")
    if others is not None and others != OTHERS:
        said.append(f"**{others} of {OTHERS} others**")
    if task is not None:
        if after is not None and after != "ok":
            said.append(f"**afterwards `{after}`**")
        if "closed" not in told and not story.ended:
            said.append("**then hangs**" if after is None else "**can't be closed**")
    return said


def _signalled(fault: Fault, story: Story) -> list[str]:
    if not story.ended:
        return ["**hangs**"]
    if fault.sent == signal.SIGINT:
        count = story.tracebacks
        return [f"ends, {count} traceback{'s' * (count != 1)}"]
    return ["ends"]


if __name__ == "__main__":
    sys.exit(main())
