"""A notebook: runs cells, a JSON list on stdin, in a kernel as a notebook server starts it; prints what they print.

A program of its own, so that nothing of the messaging library is left in the process of the tests.
"""

import json
import sys

from jupyter_client.manager import KernelManager


def main() -> None:
    cells = json.load(sys.stdin)
    manager = KernelManager(kernel_name="python3", transport="ipc")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready()
        for cell in cells:
            client.execute_interactive(cell, timeout=150, output_hook=show)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def show(message: dict[str, dict[str, str]]) -> None:
    content = message["content"]
    print(content.get("text", ""), *content.get("traceback", ()), sep="", end="", flush=True)


if __name__ == "__main__":
    main()
