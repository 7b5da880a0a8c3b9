"""The table of `grpo-dist compare`."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from grpo_dist.cli.views import print_models
from grpo_dist.evaluation.comparison import Answered, ComparedProblem, Paired, compare_all


def compared(k: int, repeated: int = 1) -> dict[str, Any]:
    keys = tuple(range(20)) * repeated
    base = [Answered("", key < 8, 10, False, min(k, key % 3), k) for key in keys]
    trained = [Answered("", key < 15, 9, False, min(k, 1 + key % 3), k) for key in keys]
    problems = [ComparedProblem("?", "1") for _ in keys]
    found = compare_all(problems, {"base": base, "runs/a": trained}, Paired(0.95, keys))
    return {"data": "held out by runs/a", **found}


def printed(found: dict[str, Any]) -> str:
    console = Console(width=110, file=io.StringIO(), record=True)
    print_models(found, console)
    return console.export_text()


def test_every_statistic_has_its_difference_and_interval():
    text = printed(compared(4))
    rows = [line.split() for line in text.splitlines()]
    greedy = next(row for row in rows if row[:2] == ["runs/a", "greedy"])
    assert greedy[2:] == ["75.0%", "(53.1%", "to", "88.8%)", "+35.0", "(+10.4", "to", "+53.5)", "+7", "−0", "9", "0.0%"]
    assert sum(row[:1] == ["mean@4"] for row in rows) == sum(row[:1] == ["pass@4"] for row in rows) == 2
    for name in ("mean@4", "pass@4"):
        assert [row for row in rows if row[:1] == [name]][-1].count("to") == 2
    assert "20 problems held out by runs/a, 95% intervals" in text


def test_without_samples_there_is_one_row_for_a_model():
    text = printed(compared(0))
    assert "mean@" not in text and "pass@" not in text


def test_repeated_problems_are_told_and_narrow_no_interval():
    once, often = printed(compared(4)), printed(compared(4, repeated=3))
    assert "60 problems (20 different) held out" in often
    assert "75.0% (53.1% to 88.8%)" in once and "75.0% (53.1% to 88.8%)" in often
