"""The tables and texts that commands print: advice, comparisons, changes of a debug run, findings, states of runs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.advice.look import Seen
from grpo_dist.advice.rules import Advice
from grpo_dist.data.text import listing
from grpo_dist.findings import Finding
from grpo_dist.plan.debug import Debug
from grpo_dist.report.numbers import MINUS, NOTHING, duration, number, percent, points
from grpo_dist.report.terminal import print_wide
from grpo_dist.slurm.status import RunStatus
from grpo_dist.text import plural


def advice_json(
    found: Advice, known: Mapping[str, str], seen: Seen | None, measured: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The advice as JSON."""
    return {
        "advice": found.name,
        "title": found.outcome.title,
        "reasons": [asdict(reason) for reason in found.reasons],
        "facts": known,
        "data": seen and seen.to_dict(),
        "base": measured,
        "next": list(found.outcome.next),
    }


def print_advice(found: Advice, seen: Seen | None, measured: Mapping[str, Any] | None, screen: Console) -> None:
    """What was seen, each answer with its reason, the advice, what to do, and the sources."""
    if seen:
        screen.print(Text(f"data     {describe_data(seen)}"))
    if measured:
        right, ever = percent(measured["mean_pass_rate"]), percent(measured["pass_at_k"])
        some = f"{measured['kept']:,} of {measured['problems']:,} problems solved at times"
        screen.print(Text(f"base     pass@1 {right}, pass@{measured['samples']} {ever}, {some}"))
    sources = list(dict.fromkeys(reason.source for reason in found.reasons))
    table = Table.grid(padding=(0, 2))
    for reason in found.reasons:
        why = f"{reason.why} [{sources.index(reason.source) + 1}]"
        table.add_row(reason.question, Text(reason.answer, style="bold"), Text(why))
    screen.print(table)
    screen.print(Text(f"\n{found.outcome.title}", style="bold"), Text(found.outcome.what), sep="\n")
    for step in found.outcome.next:
        screen.print(Text(f"  → {step}"))
    screen.print()
    for index, source in enumerate(sources, 1):
        screen.print(Text(f"[{index}] {source}", style="dim"), soft_wrap=True)


def describe_data(seen: Seen) -> str:
    """The data in one sentence."""
    judged = ", answers that are judged" if seen.judged else ""
    if not seen.labels:
        where = "" if judged else f" in {listing(seen.columns)}; --answer COLUMN names the column that has them"
        return f"{seen.rows:,} rows{judged}, no labels found{where}"
    names = {"number": "numbers", "mathematics": "mathematics", "short": "short texts", "text": "long texts"}
    examined = sum(seen.kinds.values())
    kinds = (f"{percent(count / examined, 0)} {names[kind]}" for kind, count in seen.kinds.items())
    final = f", data.answer_extractor {seen.extractor}" if seen.extractor != "none" else ""
    classes = f", {seen.different} different" if seen.are_classes else ""
    what = f"{', '.join(kinds)}{classes}"
    return f"{seen.rows:,} rows{judged}, {seen.labels:,} labels in {seen.answer_column!r}{final}: {what}"


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


def debug_lines(debug: Debug, width: int) -> Iterator[str]:
    """The lines to print before it starts, at most `width` wide; changes are grouped by their reason."""
    yield "scaled down to this machine:"
    for why, group in groupby(debug.changes, key=lambda change: change.why):
        changes = list(group)
        longest = max(len(change.setting) for change in changes)
        yield _wrapped(why, 2, width)
        for change in changes:
            written = f"{change.setting:<{longest}}  {_written(change.before)} → {_written(change.after)}"
            yield _wrapped(written, 4, width)
    yield "not tried here:"
    for one in debug.remains or ("nothing: this machine is all the configuration asks for",):
        yield _wrapped(one, 2, width)


def _wrapped(text: str, indent: int, width: int) -> str:
    """The text wrapped with a hanging indent; words stay whole, so that they can be copied."""
    first, further = indent * " ", (indent + 4) * " "
    return "\n".join(
        textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
        )
    )


def _written(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def print_findings(found: Sequence[Finding], console: Console) -> None:
    """One row for each finding, with the hint below it."""
    table = Table.grid(padding=(0, 2))
    for finding in found:
        text = Text(finding.what)
        if finding.hint and finding.status != "ok":
            text.append(f"\n→ {finding.hint}", style="dim")
        table.add_row(Text(finding.status, style=STYLES[finding.status]), Text(finding.name, style="bold"), text)
    console.print(table)


COLUMNS = (
    "run",
    "state",
    "job",
    "nodes",
    "step",
    "reward",
    "tokens/s",
    "attempts",
    "steps' time left",
    "limit's time left",
)
COLOURS = {"running": "green", "finished": "bold green", "queued": "yellow", "stopped": "yellow", "failed": "red"}
PLAIN = ("RUNNING", "COMPLETED")
"""States of Slurm that say no more than those of `RunStatus`."""


def print_status(runs: Sequence[RunStatus], console: Console) -> None:
    """A row for each run, then why some of them wait or failed."""
    rows = [[Text(str(run.run)), Text(run.state, style=COLOURS.get(run.state, "")), *_cells(run)] for run in runs]
    print_wide(COLUMNS, rows, console)
    for run in runs:
        if why := ": ".join(word for word in (run.queue_state, run.reason) if word and word not in PLAIN):
            console.print(Text(f"{run.run}: {run.state}: {why}", style=COLOURS.get(run.state, "")))


def _cells(run: RunStatus) -> Iterator[Text]:
    of = f"/{run.max_steps:,}" if run.max_steps else ""
    for cell in (
        run.job_id or NOTHING,
        run.nodes or NOTHING,
        f"{run.step:,}{of}",
        number(run.reward),
        number(run.tokens_per_second),
        str(run.attempts),
        NOTHING if run.seconds_left_of_steps is None else duration(run.seconds_left_of_steps),
        NOTHING if run.seconds_left_of_limit is None else duration(run.seconds_left_of_limit),
    ):
        yield Text(cell)
