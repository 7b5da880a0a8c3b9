"""Tables for the terminal: one run, or several runs side by side with the settings in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
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
    return Text.assemble((record.name, "bold"), "  ", (record.state, "green" if record.comparison else "yellow"))


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
