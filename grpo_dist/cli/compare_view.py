"""The output of `grpo-dist compare` as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.report.numbers import MINUS, NOTHING, number, percent, points
from grpo_dist.text import plural

HEADINGS = ("right", "difference", "gained, lost", "tokens", "cut")
ENDS = ("estimate", "low", "high")


def print_models(found: Mapping[str, Any], console: Console) -> None:
    """A row for every statistic of each model; differences are to the first model."""
    table = Table(
        caption=f"{_counted(found)} {_from(found)}, {percent(found['confidence'], 0)} intervals; differences to "
        f"{found['models'][0]['name']}, paired, in percentage points",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    for heading, justify in (("", "left"), ("", "left"), *((one, "right") for one in HEADINGS)):
        table.add_column(heading, justify=justify)
    for model in found["models"]:
        for row in _rows(model, found["k"]):
            table.add_row(*row)
    console.print(table)


def _counted(found: Mapping[str, Any]) -> str:
    rows, different = found["problems"], found["different_problems"]
    return plural(rows, "problem") if rows == different else f"{plural(rows, 'problem')} ({different:,} different)"


def _from(found: Mapping[str, Any]) -> str:
    data = found["data"]
    return data if data.startswith("held out by") else f"of {data}"


def _rows(model: Mapping[str, Any], k: int) -> Iterator[tuple[Text | str, ...]]:
    """The rows of a model; the first also has the columns that only greedy answers have."""
    flips = NOTHING if model["gained"] is None else f"+{model['gained']:,} {MINUS}{model['lost']:,}"
    greedy = (flips, number(model["mean_completion_length"]), percent(model["clipped_ratio"]))
    yield Text(model["name"], style="bold"), "greedy", *_estimates(model, "greedy_accuracy"), *greedy
    if k:
        yield "", f"mean@{k}", *_estimates(model, "mean_at_k"), "", "", ""
        yield "", f"pass@{k}", *_estimates(model, "pass_at_k"), "", "", ""


def _estimates(model: Mapping[str, Any], measure: str) -> tuple[Text, Text]:
    """One statistic, and its difference to the first model."""
    own, gap = model[measure], (model["difference"] or {}).get(measure)
    right = _with_span(*(percent(own[key]) for key in ENDS))
    return right, _with_span(*(points(gap[key]) for key in ENDS)) if gap else Text(NOTHING)


def _with_span(value: str, low: str, high: str) -> Text:
    return Text.assemble(value, Text(f" ({low} to {high})", style="dim"))
