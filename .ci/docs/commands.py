"""The reference of the command line: what `--help` says of each command, in the place of a marker on its page."""

import os
import subprocess
import sys

from shoal.cli import COMMANDS

MARKER = "<!-- the help of every command -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs with each page."""
    if MARKER not in markdown:
        return markdown
    names = [command.__name__.rpartition(".")[2] for command in COMMANDS]
    return markdown.replace(MARKER, "\n".join(f"## shoal {name}\n\n```text\n{told_by(name)}```\n" for name in names))


def told_by(command: str) -> str:
    asked = [sys.executable, "-m", "shoal", command, "--help"]
    return subprocess.run(asked, check=True, capture_output=True, text=True, env=os.environ | {"COLUMNS": "100"}).stdout
