"""What a command shows: lines and tables for people, one JSON document for programs, progress where somebody watches.

Nothing that came from outside reaches a terminal with its control characters.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

_PLAIN_SECONDS = 5.0
"""How often progress is told where nobody watches a bar."""


def printable(text: str) -> str:
    r"""The text on one line, with everything that could steer a terminal or reorder a line written out.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def sized(count: int) -> str:
    """A number of bytes for people: `812 bytes`, `1.2 MB`."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def share(ratio: float) -> str:
    """A share for people; one that is not zero is never written as zero.

    >>> share(0.1234), share(0.000001), share(0), share(1)
    ('12.34 %', 'under 0.001 %', '0 %', '100 %')
    """
    return "under 0.001 %" if 0 < ratio < 0.00001 else f"{ratio * 100:.3f}".rstrip("0").rstrip(".") + " %"


class Output:
    """Where one command writes. With `as_json` standard output carries one document, and lines go to standard error;
    `quiet` drops lines, never warnings."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self._quiet = quiet
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # An image's name may hold letters that the terminal's encoding does not have.
                stream.reconfigure(errors="backslashreplace")
        self._lines = sys.stderr if as_json else sys.stdout
        self._progress = Console(stderr=True)
        self._tables = Console(file=self._lines, highlight=False)

    @property
    def is_watched(self) -> bool:
        """Whether somebody sees progress: a terminal, and lines are wanted."""
        return self._progress.is_terminal and not self._quiet

    def say(self, text: str = "") -> None:
        """One line for people."""
        if not self._quiet:
            self._lines.write(printable(text) + "\n")
            self._lines.flush()

    def warn(self, text: str) -> None:
        """One line on standard error, even when quiet."""
        sys.stderr.write(f"Warning: {printable(text)}\n")

    def document(self, value: object) -> None:
        """The one JSON document of a command."""
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under a header; every column but the first is flush right."""
        if self._quiet:
            return
        if self._tables.is_terminal:
            self._tables.print(_drawn(header, rows))
            return
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
        for row in (header, *rows):
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            self.say("  ".join(cells).rstrip())

    def findings(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of long texts: a table on a terminal, elsewhere one plain line each, without the header."""
        if self._quiet:
            return
        if self._tables.is_terminal:
            self._tables.print(_drawn(header, rows, justify="left"))
            return
        for row in rows:
            self.say("  ".join(row))

    @contextmanager
    def progress(self, what: str, total: int) -> Generator[Callable[[int], None]]:
        """Progress of something that can be counted: yields a function that is told how many more are done."""
        if self.is_watched:
            with Progress(console=self._progress, transient=True) as bar:
                task = bar.add_task(what, total=total)
                yield lambda more: bar.advance(task, more)
            return
        done, told_at = 0, time.monotonic()

        def tell(more: int) -> None:
            nonlocal done, told_at
            done += more
            if done < total and time.monotonic() - told_at > _PLAIN_SECONDS:
                told_at = time.monotonic()
                self.say(f"{what}: {done:,} of {total:,}")

        yield tell

    @contextmanager
    def waiting(self, what: str) -> Generator[Callable[[str], None]]:
        """Progress of something that cannot be counted: yields a function that is told how it stands now."""
        if self.is_watched:
            with self._progress.status(Text(printable(what))) as status:
                yield lambda now: status.update(Text(printable(now)))
            return
        told = ""

        def tell(now: str) -> None:
            nonlocal told
            if now != told:
                told = now
                self.say(now)

        tell(what)
        yield tell


def _drawn(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, justify: Literal["left", "right"] = "right"
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text(header[0]))
    for name in header[1:]:
        table.add_column(Text(name), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
