"""Bars in a notebook, with a real kernel: widgets in the cell, of the client and of its workers."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Notebook:
    """A notebook with one cell after the other.

    Attributes:
        widgets: what each widget shows: its latest state, by its id.
        shown: how many outputs the cells have.
    """

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self.widgets: dict[str, dict[str, Any]] = {}
        self.shown = 0

    def run(self, cell: str) -> str:
        """Runs a cell and returns what it prints. An error in it is one of the test."""
        printed: list[str] = []

        def look(message: dict[str, Any]) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed.append(content["text"])
            elif kind == "display_data":
                self.shown += 1
            elif kind == "comm_open":
                self.widgets[content["comm_id"]] = dict(content["data"].get("state", {}))
            elif kind == "comm_msg" and content["data"].get("method") == "update":
                self.widgets[content["comm_id"]].update(content["data"]["state"])

        reply = self._client.execute_interactive(cell, output_hook=look, timeout=150, store_history=False)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(printed)

    def bars(self) -> list[tuple[str, float, float]]:
        """Description, value and maximum of each bar that was ever shown."""
        boxes = [state for state in self.widgets.values() if len(state.get("children", ())) == 3]
        found = []
        for box in boxes:
            left, bar, _ = (self.widgets[child.removeprefix("IPY_MODEL_")] for child in box["children"])
            found.append((left["value"].partition(":")[0].replace("\u2007", " "), bar["value"], bar["max"]))
        return found


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    manager = KernelManager(transport="ipc", connection_file=str(tmp_path / "kernel.json"))
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]  # type: ignore[union-attr]
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=150)
        yield Notebook(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        asyncio.set_event_loop(None)


def test_bars_are_widgets_and_workers_move_them_and_add_their_own(notebook: Notebook) -> None:
    printed = notebook.run("""
        import shoal, tqdm.notebook

        pool = shoal.Pool(2)
        def work(i):
            for _ in shoal.tqdm(range(5), desc=f"part {i}", leave=False):
                pass
            outer.write(f"wrote {i}")
            ordinary.update()
            outer.update()

        ordinary = tqdm.notebook.tqdm(total=3, desc="ordinary")
        with shoal.tqdm(total=3, desc="outer") as outer:
            pool.map(work, range(3), chunksize=1)
        ordinary.close()
        print(isinstance(outer, tqdm.notebook.tqdm), outer.n, ordinary.n)
    """)
    assert printed.splitlines()[-1] == "True 3 3"
    assert sorted(printed.splitlines()[:-1]) == ["wrote 0", "wrote 1", "wrote 2"]
    bars = notebook.bars()
    assert notebook.shown == 5
    assert ("outer", 3, 3) in bars and ("ordinary", 3, 3) in bars
    assert sorted(bar for bar in bars if bar[0].startswith("part")) == [(f"part {i}", 5, 5) for i in range(3)]


def test_a_map_shows_its_bar_in_the_cell(notebook: Notebook) -> None:
    notebook.run("import shoal; pool = shoal.Pool(2)")
    printed = notebook.run("print(pool.map(abs, range(-50, 0), progress={'desc': 'map'})[0])")
    assert printed == "50\n"
    assert notebook.bars() == [("map", 50, 50)]


def test_what_workers_print_log_and_warn_of_comes_in_the_cell_before_the_result(notebook: Notebook) -> None:
    notebook.run("""
        import logging, subprocess, sys, warnings
        import shoal

        logging.basicConfig(level="INFO", stream=sys.stdout, format="logged %(message)s")
        pool = shoal.Pool(2)

        def work(i):
            print("printed", i)
            print("complained", i, file=sys.stderr)
            logging.info("%d", i)
            warnings.warn("careful")
    """)
    for _ in range(2):
        printed = notebook.run("pool.map(work, range(3), chunksize=1); print('done')").splitlines()
        expected = [f"{what} {i}" for what in ("complained", "logged", "printed") for i in range(3)]
        assert sorted(line for line in printed if line in expected) == expected
        assert printed[-1] == "done"
    assert "careful" in notebook.run("pool.apply(lambda: warnings.warn('careful'))")
