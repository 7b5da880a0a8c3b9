"""Text in columns that fits a terminal of any width, for output that must not wait for rich to be imported."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap

import click

from grpo_dist.cli.options import WIDTH_OF_A_FILE
from grpo_dist.text import PrintableStream, beneath, printable_but_colours

GAP = "  "
LEAST = 24
"""Columns that a last cell needs beside the others; with fewer it follows below."""


def width() -> int:
    """Columns of standard output: those of the terminal, or a fixed number."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH_OF_A_FILE


def show(lines: Iterable[str]) -> None:
    """Print lines; without colours if that is no terminal, or NO_COLOR is set."""
    color = False if os.environ.get("NO_COLOR") else None
    stream = PrintableStream(beneath(sys.stdout), printable_but_colours)
    for line in lines:
        click.echo(line.rstrip(), file=stream, color=color)


def paragraphs(text: str, columns: int, **style: object) -> Iterator[str]:
    """The lines of a text, wrapped; what continues a line has its indentation."""
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        for part in wrap(line, columns, subsequent_indent=indent, break_on_hyphens=False) or [""]:
            yield click.style(part, **style) if style else part


def grid(rows: Iterable[Sequence[str]], columns: int, right: Iterable[int] = ()) -> Iterator[str]:
    """Rows of aligned cells. A row's only cell may be as wide as all; the last of several is dim and wraps."""
    rows = list(rows)
    widths = [max(map(_length, cells)) for cells in zip_longest(*(row for row in rows if len(row) > 1), fillvalue="")]
    taken = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    for *first, last in rows:
        if not first:
            yield from paragraphs(last, columns) if _length(last) > columns else (last,)
            continue
        start = GAP.join(
            _aligned(cell, size, at in right) for at, (cell, size) in enumerate(zip(first, widths, strict=False))
        )
        beside = columns - taken >= min(LEAST, _length(last))
        parts = list(paragraphs(last, columns - (taken if beside else 4), dim=True)) or [""]
        yield f"{start}{GAP}{parts.pop(0)}" if beside else start
        yield from (f"{' ' * (taken if beside else 4)}{part}" for part in parts)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], columns: int, keys: int = 1) -> Iterator[str]:
    """Cells under their headings, to the right. Columns for which there is no room follow below, beside the first."""
    cells = list(zip(headings, *rows, strict=True))
    widths = [max(_length(line) for cell in column for line in cell.split("\n")) for column in cells]
    for number, block in enumerate(_blocks(widths, columns, keys)):
        yield from [""] if number else []
        named = zip_longest(*(reversed(cells[at][0].split("\n")) for at in block), fillvalue="")
        for line in reversed(list(named)):
            words = (_aligned(word, widths[at], True) for at, word in zip(block, line, strict=True))
            yield click.style(GAP.join(words).rstrip(), bold=True)
        for row in rows:
            yield GAP.join(_aligned(row[at], widths[at], True) for at in block)


def _blocks(widths: Sequence[int], columns: int, keys: int) -> Iterator[list[int]]:
    """Which columns stand side by side; the first `keys` in each block."""
    block = list(range(keys))
    for at in range(keys, len(widths)):
        if len(block) > keys and sum(widths[i] + len(GAP) for i in block) + widths[at] > columns:
            yield block
            block = list(range(keys))
        block.append(at)
    yield block


def _length(text: str) -> int:
    return len(click.unstyle(text))


def _aligned(text: str, columns: int, right: bool) -> str:
    room = " " * (columns - _length(text))
    return room + text if right else text + room
