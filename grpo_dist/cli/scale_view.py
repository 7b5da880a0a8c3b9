"""The output of `grpo-dist scale` as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

NOTHING = "–"
COLUMNS = (
    "nodes",
    "group",
    "prompts",
    "completions",
    "training × at a time × accum.",
    "replicas",
    "GiB a GPU (left)",
    "learning rate",
    "tokens/step",
    "s/step",
)


class Column(NamedTuple):
    """A column of the time table: heading, key of the row, format."""

    name: str
    key: str
    form: str


TIMES = (
    Column("gen. s", "generation_seconds", "{:,.1f}"),
    Column("train s", "training_seconds", "{:,.1f}"),
    Column("sync s", "sync_seconds", "{:,.1f}"),
    Column("compare s", "comparison_seconds", "{:,.0f}"),
    Column("tokens/s GPU", "tokens_per_second_per_gpu", "{:,.0f}"),
    Column("linear", "efficiency", "{:.0%}"),
    Column("other", "other_mode", "{}"),
    Column("its s", "other_seconds_per_step", "{:,.1f}"),
    Column("hours", "run_hours", "{:,.1f}"),
    Column("h/epoch", "hours_per_epoch", "{:,.1f}"),
    Column("jobs", "jobs", "{:,}"),
    Column("cost", "cost", "{:,.0f}"),
)


TIMES_CAPTION = (
    "gen., train, sync: of a step; compare: after the last; linear: tokens/s of a GPU, of those on the fewest; "
    "other, its: the other mode and its step; hours: with the comparison; jobs: of cluster.time"
)


def print_sizes(
    rows: list[dict[str, Any]], keep: str, steps: int, assumptions: list[dict[str, Any]], console: Console
) -> None:
    """The tables, then sizes that cannot run, warnings, the source of the learning rates, and assumptions."""
    table = Table(caption=f"{keep} kept; hours of {steps:,} optimizer steps", caption_justify="left")
    for name in (*COLUMNS, "hours", "GPU-hours"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(cells(row) if row["runs"] else _refused(row)))
    console.print(table)
    if any("generation_seconds" in row for row in rows):
        console.print(_times(rows))
    for text in (*_problems(rows), *_warnings(rows)):
        console.print(Text(text, style="yellow"))
    for source in dict.fromkeys(row["learning_rate"]["source"] for row in rows if row["learning_rate"]):
        console.print(Text(f"learning rate: a value to start from, not a law; {source}", style="dim"))
    for assumed in assumptions:
        console.print(Text(f"assumed: {assumed['name']} {assumed['value']:,.6g} ({assumed['source']})", style="dim"))


def _times(rows: list[dict[str, Any]]) -> Table:
    """Where the time goes for each size, and the totals of the run."""
    timed = [row for row in rows if "generation_seconds" in row]
    columns = [column for column in TIMES if any(row.get(column.key) is not None for row in timed)]
    table = Table(caption=TIMES_CAPTION, caption_justify="left")
    for name in ("nodes", "group", *(column.name for column in columns)):
        table.add_column(name, justify="right")
    for row in timed:
        shown = (_cell(row.get(column.key), column.form) for column in columns)
        table.add_row(f"{row['nodes']:,}", f"{row['num_generations']:,}", *shown)
    return table


def _cell(value: Any, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def cells(row: dict[str, Any]) -> Iterator[str]:
    """The cells of a size that can run."""
    yield from _batch_cells(row)
    per_device, accumulated = row["per_device_train_batch_size"], row["gradient_accumulation_steps"]
    yield f"{row['num_processes']} × {per_device} × {accumulated}"
    yield str(row["replicas"] or NOTHING)
    fullest = max(row["memory"].values(), key=lambda role: role["total_bytes"], default=None)
    yield NOTHING if fullest is None else _memory(fullest)
    yield f"{row['learning_rate']['learning_rate']:.2g}"
    for name, digits in (("tokens_per_step", 0), ("seconds_per_step", 1), ("hours", 1), ("gpu_hours", 1)):
        yield NOTHING if row[name] is None else f"{row[name]:,.{digits}f}"


def _refused(row: dict[str, Any]) -> Iterator[str]:
    yield from _batch_cells(row)
    yield "cannot run"
    yield from [NOTHING] * (len(COLUMNS) + 2 - 5)


def _batch_cells(row: dict[str, Any]) -> Iterator[str]:
    for name in ("nodes", "num_generations", "prompts_per_step", "completions_per_step"):
        yield NOTHING if row[name] is None else f"{row[name]:,}"


def _memory(role: dict[str, Any]) -> str:
    left = role["headroom_bytes"]
    return f"{role['total_bytes'] / 2**30:.1f}" + ("" if left is None else f" ({left / 2**30:.1f})")


def _problems(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["problem"]:
            hint = f"\n  → {row['problem']['hint']}" if row["problem"]["hint"] else ""
            yield f"{_name(row)}: {row['problem']['message']}{hint}"


def _warnings(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each warning once, with its sizes unless it concerns all of them."""
    about: dict[str, list[str]] = {}
    for row in rows:
        for warning in row.get("warnings", ()):
            about.setdefault(warning, []).append(_name(row))
    running = sum(row["runs"] for row in rows)
    for warning, names in about.items():
        yield f"warning: {warning}" if len(names) == running else f"warning: {'; '.join(names)}: {warning}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['nodes']} node{'' if row['nodes'] == 1 else 's'}, group {row['num_generations']}"
