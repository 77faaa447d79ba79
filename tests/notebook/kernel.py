"""A notebook with a real kernel: one cell after the other, and the buttons Interrupt and Restart."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
from jupyter_client.manager import KernelManager

# As long as a cell may take on a busy machine; only a failing test meets it.
PATIENCE = 150.0


@dataclass
class Answer:
    """What a cell shows.

    Attributes:
        printed: its text, of stdout and stderr. Which of the two comes first is the kernel's business.
        stdout: of that, what is from stdout.
        html: what it displays as HTML.
        error: the name of the exception that ended it; "" if none did.
        traceback: what is shown of that, without colours.
    """

    printed: str = ""
    stdout: str = ""
    html: list[str] = field(default_factory=list)
    error: str = ""
    traceback: str = ""


class Notebook:
    """A notebook.

    Attributes:
        widgets: what each widget shows: its latest state, by its id.
        displays: how many outputs the cells have.
    """

    def __init__(self, manager: KernelManager) -> None:
        self._manager = manager
        self._client = manager.client()
        self._client.start_channels()
        self.widgets: dict[str, dict[str, Any]] = {}
        self.displays = 0
        self._client.wait_for_ready(timeout=PATIENCE)

    def run(self, cell: str) -> str:
        """Runs a cell and returns what it prints. An error in it is one of the test."""
        answer = self.answer(cell)
        assert not answer.error, answer.traceback
        return answer.printed

    def answer(self, cell: str, meanwhile: Callable[[], object] = lambda: None) -> Answer:
        """Runs a cell and returns all that it shows.

        Args:
            cell: its source.
            meanwhile: called when the kernel has got it.
        """
        message_id = self._client.execute(cell, store_history=False)
        meanwhile()
        answer = Answer()
        deadline = time.monotonic() + PATIENCE
        while True:
            left = deadline - time.monotonic()
            try:
                message = self._client.get_iopub_msg(timeout=max(left, 0.0))
            except Empty:
                raise AssertionError(f"the cell does not end; so far {answer}") from None
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            self._show(answer, kind, content)
        # Its reply says nothing more, but must not be taken for that of another.
        while self._client.get_shell_msg(timeout=PATIENCE)["parent_header"]["msg_id"] != message_id:
            pass
        return answer

    def _show(self, answer: Answer, kind: str, content: dict[str, Any]) -> None:
        if kind == "stream":
            answer.printed += content["text"]
            if content["name"] == "stdout":
                answer.stdout += content["text"]
        elif kind == "error":
            answer.error = content["ename"]
            answer.traceback += re.sub(r"\x1b\[[\d;]*m", "", "\n".join(content["traceback"]))
        elif kind in ("display_data", "execute_result"):
            self.displays += 1
            if "text/html" in content["data"]:
                answer.html.append(content["data"]["text/html"])
        elif kind == "comm_open":
            self.widgets[content["comm_id"]] = dict(content["data"].get("state", {}))
        elif kind == "comm_msg" and content["data"].get("method") == "update":
            self.widgets[content["comm_id"]].update(content["data"]["state"])

    def bars(self) -> list[tuple[str, float, float]]:
        """Description, value and maximum of each bar that was ever shown."""
        boxes = [state for state in self.widgets.values() if len(state.get("children", ())) == 3]
        found = []
        for box in boxes:
            left, bar, _ = (self.widgets[child.removeprefix("IPY_MODEL_")] for child in box["children"])
            found.append((left["value"].partition(":")[0].replace("\u2007", " "), bar["value"], bar["max"]))
        return found

    @property
    def process(self) -> psutil.Process:
        """That of the kernel."""
        return psutil.Process(self._manager.provisioner.process.pid)  # type: ignore[union-attr]

    def interrupt(self) -> None:
        """As the button does: SIGINT, for the kernel and all of its process group."""
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """As the button does: the kernel is asked to end, and started again."""
        self._manager.restart_kernel()
        self._client.wait_for_ready(timeout=PATIENCE)

    def kill(self) -> None:
        """As when the machine is out of memory: SIGKILL, for the kernel alone."""
        self.process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Ends the kernel."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
        asyncio.set_event_loop(None)


@contextlib.contextmanager
def started(directory: Path) -> Iterator[Notebook]:
    """A notebook in that directory."""
    manager = KernelManager(transport="ipc", connection_file=str(directory / "kernel.json"))
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]  # type: ignore[union-attr]
    manager.start_kernel(cwd=str(directory))
    notebook = Notebook(manager)
    try:
        yield notebook
    finally:
        notebook.close()
