"""Tables for the terminal: one run, or several runs side by side with the settings in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.evaluation import Interval
from grpo_dist.report.numbers import NOTHING, change, data_size, duration, number, percent, points
from grpo_dist.report.record import Comparison, Measure, RunRecord
from grpo_dist.report.summary import generated_by, hardware_summary, summary
from grpo_dist.run.directory import write_atomically
from grpo_dist.text import plural


def print_summary(record: RunRecord, console: Console) -> None:
    """Print the state of the run, and base and trained model if they have been compared."""
    console.print(_heading(record))
    console.print(_facts(record))
    if record.comparison:
        console.print(_scores_table(record.comparison))
        console.print(_flips(record.comparison))
    else:
        console.print(Text(record.without_comparison, style="yellow"))


def _heading(record: RunRecord) -> Text:
    colour = "green" if record.progress == "finished" else "yellow"
    return Text.assemble((record.name, "bold"), "  ", (record.progress, colour))


def _facts(record: RunRecord) -> Table:
    known = summary(record)
    seconds, speed = known["training_seconds"], known["tokens_per_second"]
    table = Table.grid(padding=(0, 2))
    table.add_row("model", Text(str(known["model"] or NOTHING)))
    if trainer := known["model_backend"]:
        table.add_row("trained by", Text(f"{trainer['name']}: {trainer['reason']}"))
    table.add_row(
        "steps", f"{known['steps']:,} of {known['max_steps']:,}" if known["max_steps"] else f"{known['steps']:,}"
    )
    table.add_row("reward", change(known["reward"]["first"], known["reward"]["last"]))
    table.add_row("speed", f"{number(speed)} tokens/s" if speed is not None else NOTHING)
    table.add_row("time", duration(seconds) if seconds is not None else NOTHING)
    table.add_row("ran on", Text(" · ".join(hardware_summary(record)) or NOTHING))
    if known["rollouts"]["generation_seconds"] is not None:
        table.add_row("rollouts", Text(" · ".join(_rollouts(known))))
    return table


def _rollouts(known: Mapping[str, Any]) -> Iterator[str]:
    found = known["rollouts"]
    yield generated_by(known)
    yield f"generation {number(found['generation_seconds'])} s"
    if found["staleness"]:
        old = plural(round(found["staleness"]), "step")
        yield f"waiting {number(found['wait_seconds'])} s, policies at most {old} old"
    if found["sync_seconds"] is not None:
        yield f"sync {number(found['sync_seconds'])} s, {data_size(found['sync_bytes'])}"
    if found["replica_utilization"] is not None:
        yield f"utilisation {percent(found['replica_utilization'], 0)}"
    if found["sampling_logp_difference_max"] is not None:
        yield f"largest log-probability difference {number(found['sampling_logp_difference_max'])}"
    if found["effective_sample_size"] is not None:
        lowest = percent(found["effective_sample_size_min"], 0)
        yield f"effective sample {percent(found['effective_sample_size'], 0)}, at least {lowest}"


def _scores_table(comparison: Comparison) -> Table:
    base, trained = comparison.base, comparison.trained
    table = Table(caption=f"{comparison.counted}, {percent(comparison.confidence, 0)} intervals")
    table.add_column("")
    for heading in ("base", "trained", "difference"):
        table.add_column(heading, justify="right")
    for one in comparison.measures:
        label = "greedy accuracy" if one.label == "Greedy" else one.label
        table.add_row(label, _cell(one.base), _cell(one.trained), _moved(one))
    lengths = number(base.mean_completion_length), number(trained.mean_completion_length)
    table.add_row("mean length (tokens)", *lengths, "")
    table.add_row("cut at the limit", percent(base.clipped_ratio), percent(trained.clipped_ratio), "")
    return table


def _moved(measure: Measure) -> Text:
    told = Text(points(measure.moved), "bold")
    gap = measure.difference
    return Text.assemble(told, "\n", _span(points(gap.low), points(gap.high))) if gap else told


def _cell(interval: Interval) -> Text:
    return Text.assemble(percent(interval.estimate), "\n", _span(percent(interval.low), percent(interval.high)))


def _span(low: str, high: str) -> Text:
    return Text(f"{low} to {high}", style="dim")


def _flips(comparison: Comparison) -> Text:
    return Text(f"{plural(comparison.gained, 'problem')} gained, {comparison.lost:,} lost (greedy)")


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
    """A row for each run; the best trained model is highlighted."""
    settings = list(compared[0]["settings"])
    best = max((row["trained"]["greedy_accuracy"] or 0.0 for row in compared), default=0.0)
    styles = ["bold green" if best and row["trained"]["greedy_accuracy"] == best else "" for row in compared]
    results = ("steps", "reward", "tokens/s", "accuracy", "points")
    print_wide(("run", *settings, *results), [list(_cells(row, settings)) for row in compared], console, styles)
    caption = "accuracy: greedy, held-out problems, base → trained; reward: first and last tenth of steps"
    console.print(Text(caption, style="dim italic"))


FRAME, AROUND = 1, 3
"""Columns that the frame of a table takes: in all, and around each cell."""


def print_wide(
    headings: Sequence[str], cells: Sequence[Sequence[Text]], console: Console, styles: Sequence[str] = ()
) -> None:
    """A table whose columns stand below one another, each time beside the first, where the console is too narrow.

    The first column folds, and any that is wider than the console by itself; nothing else is cut. Columns without any
    value are left out then.
    """
    columns = zip(map(Text, headings), *cells, strict=True)
    widths = [max(cell.cell_len for cell in column) for column in columns]
    room = console.width - FRAME
    if sum(width + AROUND for width in widths) > room and len(told := _told(cells)) < len(headings):
        narrower = [[row[at] for at in told] for row in cells]
        return print_wide([headings[at] for at in told], narrower, console, styles)
    key = min(widths[0], max(len(headings[0]), room // 3))
    widest = room - key - 2 * AROUND
    for block in _blocks([min(width, widest) + AROUND for width in widths[1:]], room - key - AROUND):
        table = Table()
        table.add_column(headings[0], overflow="fold", width=key)
        for at in block:
            left = headings[at + 1] in LEFT
            table.add_column(headings[at + 1], justify="left" if left else "right", overflow="fold", max_width=widest)
        for row, style in zip_longest(cells, styles):
            table.add_row(row[0], *(row[at + 1] for at in block), style=style or None)
        console.print(table)


def _told(cells: Sequence[Sequence[Text]]) -> list[int]:
    """The first column, and those with a value in some row."""
    return [
        at for at, column in enumerate(zip(*cells, strict=True)) if not at or any(c.plain != NOTHING for c in column)
    ]


LEFT = ("state", "nodes")
"""Headings above words."""


def _blocks(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Which columns stand side by side."""
    block: list[int] = []
    for at, width in enumerate(widths):
        if block and sum(widths[one] for one in block) + width > room:
            yield block
            block = []
        block.append(at)
    if block:
        yield block


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
