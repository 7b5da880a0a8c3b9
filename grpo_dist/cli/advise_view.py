"""The output of `grpo-dist advise`: tables, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.advice.look import Seen
from grpo_dist.advice.rules import Advice
from grpo_dist.data.text import listing
from grpo_dist.report.numbers import percent


def to_json(
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
    for number, source in enumerate(sources, 1):
        screen.print(Text(f"[{number}] {source}", style="dim"), soft_wrap=True)


def describe_data(seen: Seen) -> str:
    """The data in one sentence."""
    judged = ", answers that are judged" if seen.judged else ""
    if not seen.labels:
        where = "" if judged else f" in {listing(seen.columns)}; --answer COLUMN names where they stand"
        return f"{seen.rows:,} rows{judged}, no labels found{where}"
    names = {"number": "numbers", "mathematics": "mathematics", "short": "short texts", "text": "long texts"}
    examined = sum(seen.kinds.values())
    kinds = (f"{percent(count / examined, 0)} {names[kind]}" for kind, count in seen.kinds.items())
    final = f", data.answer_extractor {seen.extractor}" if seen.extractor != "none" else ""
    classes = f", {seen.different} different" if seen.are_classes else ""
    what = f"{', '.join(kinds)}{classes}"
    return f"{seen.rows:,} rows{judged}, {seen.labels:,} labels in {seen.answer_column!r}{final}: {what}"
