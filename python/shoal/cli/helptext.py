"""Help texts as wide as the terminal: paragraphs are filled, and rows of two columns keep them."""

import argparse
import re
import textwrap

__all__ = ["HelpText"]

# What comes before the second column of a row: it is indented, and a gap follows.
_FIRST_COLUMN = re.compile(r" +\S.*?  +(?=\S)")


class HelpText(argparse.HelpFormatter):
    """For the `formatter_class` of a parser. Blank lines part paragraphs; one with indented lines is a table."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_filled(paragraph, width) for paragraph in text.strip("\n").split("\n\n"))


def _filled(paragraph: str, width: int) -> str:
    lines = paragraph.split("\n")
    if not any(line.startswith(" ") for line in lines):
        return textwrap.fill(" ".join(lines), width, break_on_hyphens=False)
    return "\n".join(_row(line, width) for line in lines)


def _row(line: str, width: int) -> str:
    first = _FIRST_COLUMN.match(line)
    if first is None or len(line) <= width:
        return line
    head = first[0]
    text = line[len(head) :]
    # A terminal that leaves no room for the second column gets the line as it is.
    return textwrap.fill(
        text, max(width, len(head) + 20), initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
