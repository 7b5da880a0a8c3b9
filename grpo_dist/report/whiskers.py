"""A chart of estimates with their intervals: base above trained, one pair per measure, from 0 to 100%."""

from __future__ import annotations

from dataclasses import dataclass

from grpo_dist.report import svg
from grpo_dist.report.comparison import Interval
from grpo_dist.report.numbers import percent

ROW, BELOW = 62.0, 34.0
LEFT, RIGHT = 84.0, 384.0


@dataclass(frozen=True)
class Pair:
    """One measure of both models."""

    label: str
    base: Interval
    trained: Interval


def draw(title: str, pairs: tuple[Pair, ...]) -> str:
    """The SVG; the base model's marks are hollow, the trained model's filled."""
    area = svg.Area(LEFT, RIGHT, 6, 6 + ROW * len(pairs))
    x = svg.Scale(0, 1, area.left, area.right)
    quarters = (0, 0.25, 0.5, 0.75, 1)
    parts = [svg.line(x(q), area.top, x(q), area.bottom, "rule") for q in quarters]
    parts += svg.vertical_labels(area, x, quarters, [percent(q, 0) for q in quarters])
    for row, pair in enumerate(pairs):
        parts += _pair(pair, area.top + ROW * row, x)
    return svg.picture(describe(title, pairs), (svg.WIDTH, area.bottom + BELOW), parts)


def describe(title: str, pairs: tuple[Pair, ...]) -> str:
    """The chart in a sentence."""
    found = (f"{p.label} {percent(p.base.estimate)} before, {percent(p.trained.estimate)} after" for p in pairs)
    return f"{title}: {'; '.join(found)}"


def _pair(pair: Pair, top: float, x: svg.Scale) -> list[str]:
    upper, lower = top + 20, top + 42
    return [
        svg.text(pair.label, LEFT - 12, top + 35, "end", "row"),
        *_whisker(pair.base, upper, x, "base"),
        *_whisker(pair.trained, lower, x, "trained"),
    ]


def _whisker(interval: Interval, y: float, x: svg.Scale, model: str) -> list[str]:
    return [
        svg.line(x(interval.low), y, x(interval.high), y, f"whisker {model}"),
        svg.element("circle", class_=f"mark {model}", cx=x(interval.estimate), cy=y, r=5.5),
        svg.text(percent(interval.estimate), svg.WIDTH - 2, y + 5, "end", f"value {model}"),
    ]
