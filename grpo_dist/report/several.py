"""Several runs beside one another: in what they differ, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.report.numbers import NOTHING, change, number, percent, points
from grpo_dist.report.record import RunRecord
from grpo_dist.report.summary import summary
from grpo_dist.run_directory import write_atomically

ABSENT = "not stated"
WIDTH_OF_A_PAGE = 160
"""Columns of text."""


def rows(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The summary of each run, JSON-ready, with `path`, and `settings`: those in which the runs differ."""
    flat = [dict(_leaves(record.config, "")) for record in records]
    names = list(dict.fromkeys(name for one in flat for name in one))
    differing = [name for name in names if any(one.get(name, ABSENT) != flat[0].get(name, ABSENT) for one in flat)]
    return [
        {"path": str(record.path), "settings": {name: one.get(name) for name in differing}, **summary(record)}
        for record, one in zip(records, flat, strict=True)
    ]


def print_several(compared: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A row for each run; the best trained model is set off."""
    table = Table(caption="accuracy: greedy, held-out problems, base → trained; reward: first and last tenth of steps")
    settings = list(compared[0]["settings"])
    for name in ("run", *settings, "steps", "reward", "tokens/s", "accuracy", "points"):
        table.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
    best = max((row["trained"]["greedy_accuracy"] or 0.0 for row in compared), default=0.0)
    for row in compared:
        won = best > 0 and row["trained"]["greedy_accuracy"] == best
        table.add_row(*_cells(row, settings), style="bold green" if won else None)
    console.print(table)


def write_several(compared: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The same table as one HTML page."""
    recorder = Console(record=True, file=StringIO(), width=WIDTH_OF_A_PAGE)
    print_several(compared, recorder)
    write_atomically(path, recorder.export_html(inline_styles=True))


def _cells(row: Mapping[str, Any], settings: Sequence[str]) -> Iterator[Text]:
    yield Text(row["path"])
    for name in settings:
        value = row["settings"][name]
        yield Text(NOTHING if value is None else str(value))
    yield Text(f"{row['steps']:,}" + (f"/{row['max_steps']:,}" if row["max_steps"] else ""))
    yield Text(change(row["reward"]["first"], row["reward"]["last"]))
    yield Text(number(row["tokens_per_second"]))
    base, trained = (row[name]["greedy_accuracy"] for name in ("base", "trained"))
    yield Text(NOTHING if trained is None else f"{percent(base)} → {percent(trained)}")
    gained = row["difference"]["estimate"]
    yield Text(NOTHING if gained is None else points(gained))


def _leaves(value: Any, dotted: str) -> Iterator[tuple[str, Any]]:
    """Each setting by its path; lists are compared whole."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{dotted}.{key}" if dotted else str(key))
    else:
        yield dotted, value
