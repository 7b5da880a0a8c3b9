"""A run in a table, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.report.comparison import Comparison, Interval, Measure
from grpo_dist.report.layout import layout
from grpo_dist.report.numbers import NOTHING, change, data_size, duration, number, percent, plural, points
from grpo_dist.report.record import RunRecord
from grpo_dist.report.rollouts import generated_by
from grpo_dist.report.summary import summary


def print_summary(record: RunRecord, console: Console) -> None:
    """Print where the run stands, and base against trained model when they have been compared."""
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
    table.add_row("ran on", Text(" · ".join(layout(record)) or NOTHING))
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
