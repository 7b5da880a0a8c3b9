"""Compared models for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.report.numbers import MINUS, NOTHING, number, percent, plural, points

Interval = Mapping[str, float]


def print_models(found: Mapping[str, Any], console: Console) -> None:
    """A row for each model; differences are to the first."""
    k, level = found["k"], percent(found["confidence"], 0)
    table = Table(
        caption=f"{plural(found['problems'], 'problem')} {_from(found)}, {level} intervals; differences to "
        f"{found['models'][0]['name']}, paired, in percentage points",
        caption_justify="left",
    )
    table.add_column("")
    measures = ("greedy_accuracy", *(("mean_at_k", "pass_at_k") if k else ()))
    sampled = (f"mean@{k}", "difference", f"pass@{k}") if k else ()
    for heading in ("greedy", "difference", "gained, lost", *sampled, "tokens", "cut"):
        table.add_column(heading, justify="right")
    for model in found["models"]:
        table.add_row(Text(model["name"], style="bold"), *_cells(model, measures))
    console.print(table)


def _from(found: Mapping[str, Any]) -> str:
    data = found["data"]
    return data if data.startswith("held out by") else f"of {data}"


def _cells(model: Mapping[str, Any], measures: tuple[str, ...]) -> Iterator[Text | str]:
    yield _estimate(model["greedy_accuracy"])
    yield _difference(model, "greedy_accuracy")
    yield NOTHING if model["gained"] is None else f"+{model['gained']:,} {MINUS}{model['lost']:,}"
    if "mean_at_k" in measures:
        yield _estimate(model["mean_at_k"])
        yield _difference(model, "mean_at_k")
        yield _estimate(model["pass_at_k"])
    yield number(model["mean_completion_length"])
    yield percent(model["clipped_ratio"])


def _estimate(interval: Interval) -> Text:
    return _with_span(percent(interval["estimate"]), percent(interval["low"]), percent(interval["high"]))


def _difference(model: Mapping[str, Any], measure: str) -> Text | str:
    if model["difference"] is None:
        return NOTHING
    gap = model["difference"][measure]
    return _with_span(points(gap["estimate"]), points(gap["low"]), points(gap["high"]))


def _with_span(value: str, low: str, high: str) -> Text:
    return Text.assemble(value, "\n", Text(f"{low} to {high}", style="dim"))
