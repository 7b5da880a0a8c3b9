"""SVG charts: metrics over the steps, and estimates with their intervals.

A metric chart has every step as a dot, a smoothed line, and a band between two further metrics. An interval chart has
the base model above the trained one, one pair per measure, from 0 to 100%. Both share elements, frame and round axis
numbers; lengths are units of the view box.

A chart is drawn once for all widths. The style sheet gives its text a size for desktops and one for phones, so the
margins leave space for the larger one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby
from math import ceil, floor, log10

from grpo_dist.evaluation import Interval
from grpo_dist.report.numbers import (
    MINUS,
    Values,
    extremes,
    number,
    percent,
    present,
    smooth,
    smoothing_window,
    thinned,
)

WIDTH, HEIGHT = 480.0, 264.0


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` (not equal) onto lengths from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class LogScale(Scale):
    """The same for values above 0, on a logarithmic scale."""

    def __call__(self, value: float) -> float:
        share = log10(value / self.low) / log10(self.high / self.low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class Area:
    """The rectangle that data is drawn in."""

    left: float
    right: float
    top: float
    bottom: float


def element(name: str, content: str = "", /, **attributes: str | float) -> str:
    """An element with escaped attributes; `class_` and `text_anchor` become `class` and `text-anchor`."""
    written = "".join(f' {_attribute(key)}="{_value(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def text(content: str, x: float, y: float, anchor: str, class_: str) -> str:
    return element("text", escape(content), class_=class_, x=x, y=y, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return element("line", class_=class_, x1=x1, y1=y1, x2=x2, y2=y2)


def path(d: str, class_: str) -> str:
    return element("path", class_=class_, d=d) if d else ""


def picture(description: str, size: tuple[float, float], parts: Iterable[str]) -> str:
    """A whole SVG of `size` (width, height), with a description for screen readers."""
    return element(
        "svg",
        element("title", escape(description)) + "".join(parts),
        viewBox=f"0 0 {short(size[0])} {short(size[1])}",
        role="img",
        aria_label=description,
    )


def horizontal_grid(area: Area, scale: Scale, ticks: Iterable[float], labels: Iterable[str]) -> list[str]:
    """A rule across and a label at the left for every tick."""
    drawn = []
    for tick, label in zip(ticks, labels, strict=True):
        y = scale(tick)
        drawn += [line(area.left, y, area.right, y, "rule"), text(label, area.left - 8, y + 4, "end", "tick")]
    return drawn


def vertical_labels(area: Area, scale: Scale, ticks: Iterable[float], labels: Iterable[str]) -> list[str]:
    """A notch and a label below the area for every tick."""
    drawn = []
    for tick, label in zip(ticks, labels, strict=True):
        x = scale(tick)
        drawn += [
            line(x, area.bottom, x, area.bottom + 4, "notch"),
            text(label, x, area.bottom + 20, "middle", "tick"),
        ]
    return drawn


def short(value: float) -> str:
    """A length with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else short(value)


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 2.5 or 5 × 10ⁿ that divides a positive `span` into at most `count` parts."""
    rough = span / count
    power = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))


def covering(low: float, high: float, count: int = 4) -> tuple[float, ...]:
    """Ticks from at or below `low` to at or above `high`."""
    low, high = _apart(low, high)
    step = nice_step(high - low, count)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return tuple(i * step for i in range(first, last + 1))


def decades(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Powers of ten from at or below a positive `low` to at or above `high`, as many steps apart as `count` allows."""
    first, last = floor(log10(low) + 1e-9), ceil(log10(high) - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    stride = ceil((last - first) / count)
    return tuple(10.0**exponent for exponent in range(first, last + stride, stride))


def whole_within(low: int, high: int, count: int = 5) -> tuple[int, ...]:
    """Whole ticks between `low` and `high`; `low` itself when there is no span."""
    if low == high:
        return (low,)
    step = max(1, ceil(nice_step(high - low, count)))
    return tuple(range(ceil(low / step) * step, high + 1, step))


def labels(ticks: tuple[float, ...]) -> tuple[str, ...]:
    """Short labels in the same format for all ticks: 0.5, 1.0, 1.5 or 2e-6, 4e-6 or 10k, 20k."""
    size = max(abs(tick) for tick in ticks)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else size or 1.0
    if 0 < size < 1e-3:
        return _scaled(ticks, step, floor(log10(size)))
    for suffix, unit in (("M", 1e6), ("k", 1e3)):
        if size >= 10 * unit or (size >= unit and step >= unit):
            return tuple(_fixed(tick / unit, step / unit) + suffix * (tick != 0) for tick in ticks)
    return tuple(_fixed(tick, step) for tick in ticks)


def percent_labels(ticks: tuple[float, ...]) -> tuple[str, ...]:
    """Labels of fractions."""
    return tuple(f"{label}%" for label in labels(tuple(100 * tick for tick in ticks)))


def _apart(low: float, high: float) -> tuple[float, float]:
    """A span around a single value that puts it in the middle of the axis; 0 is at the bottom."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) / 2
    return (low - room, high + room) if room else (0.0, 1.0)


def _scaled(ticks: tuple[float, ...], step: float, exponent: int) -> tuple[str, ...]:
    unit = 10.0**exponent
    return tuple(_fixed(t / unit, step / unit) + f"e{exponent}".replace("-", MINUS) if t else "0" for t in ticks)


def _fixed(value: float, step: float) -> str:
    """The label with as many decimals as the step needs."""
    decimals = next((d for d in range(9) if abs(round(step, d) - step) < 1e-6 * step), 9)
    text = f"{value:.{decimals}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


LINE_POINTS, DOTS, FEW = 240, 320, 15
"""Most corners of a line, most dots of a metric, and dots that are drawn larger."""
HALF_DOT = 4.0


@dataclass(frozen=True)
class Trace:
    """One metric; `low` and `high` bound its band. Each has one value per step."""

    label: str
    values: Values
    low: Values = ()
    high: Values = ()


@dataclass(frozen=True)
class LineChart:
    """Traces over `steps`. `bounds` are values that the vertical axis must include."""

    title: str
    steps: tuple[int, ...]
    traces: tuple[Trace, ...]
    bounds: tuple[float, ...] = ()
    as_percent: bool = False
    log: bool = False
    """Powers of ten on the vertical axis; every value is above 0."""
    noisy: bool = True
    """Smoothed when drawn."""
    note: str = ""

    @property
    def window(self) -> int:
        """Steps that the lines are averaged over."""
        return smoothing_window(len(self.steps)) if self.noisy else 1

    @property
    def has_values(self) -> bool:
        return any(present(trace.values) for trace in self.traces)


def draw(chart: LineChart, width: float = WIDTH) -> str:
    """The SVG of a chart that has values."""
    area = Area(left=56, right=width - 20, top=12, bottom=HEIGHT - 46)
    smoothed = [_smoothed(trace, chart.window) for trace in chart.traces]
    shown = [*chart.bounds, *_extent(chart.traces), *_extent(smoothed)]
    marks = (decades if chart.log else covering)(min(shown), max(shown))
    y = (LogScale if chart.log else Scale)(marks[0], marks[-1], area.bottom, area.top)
    x = _step_scale(chart.steps, area)
    return picture(
        describe(chart),
        (width, HEIGHT),
        [
            *horizontal_grid(area, y, marks, _names(chart, marks)),
            *_step_axis(chart.steps, area, x),
            *(_band(chart.steps, trace, i, x, y) for i, trace in enumerate(smoothed)),
            *(_dots(chart.steps, trace, i, x, y) for i, trace in enumerate(chart.traces)),
            *(_line(chart.steps, trace, i, x, y) for i, trace in enumerate(smoothed)),
        ],
    )


def describe(chart: LineChart) -> str:
    """A one-sentence description of the chart."""
    write = percent if chart.as_percent else number
    found = []
    for trace in chart.traces:
        if values := present(trace.values):
            span = f"lowest {write(min(values))}, highest {write(max(values))}"
            found.append(f"{trace.label} from {write(values[0])} to {write(values[-1])}, {span}")
    return f"{chart.title}, steps {chart.steps[0]:,} to {chart.steps[-1]:,}: {'; '.join(found)}"


def _names(chart: LineChart, marks: tuple[float, ...]) -> tuple[str, ...]:
    if chart.log:
        return tuple(number(mark) for mark in marks)
    return percent_labels(marks) if chart.as_percent else labels(marks)


def _smoothed(trace: Trace, window: int) -> Trace:
    return Trace(trace.label, *(smooth(values, window) for values in (trace.values, trace.low, trace.high)))


def _extent(traces: list[Trace] | tuple[Trace, ...]) -> Iterator[float]:
    for trace in traces:
        for values in (trace.values, trace.low, trace.high):
            yield from present(values)


def _step_scale(steps: tuple[int, ...], area: Area) -> Scale:
    room = 1 if steps[0] == steps[-1] else 0
    return Scale(steps[0] - room, steps[-1] + room, area.left + 8, area.right)


def _step_axis(steps: tuple[int, ...], area: Area, x: Scale) -> list[str]:
    marks = whole_within(steps[0], steps[-1])
    middle = (area.left + area.right) / 2
    return [
        line(area.left, area.bottom, area.right, area.bottom, "axis"),
        *vertical_labels(area, x, marks, labels(marks)),
        text("step", middle, HEIGHT - 4, "middle", "tick"),
    ]


def _dots(steps: tuple[int, ...], trace: Trace, index: int, x: Scale, y: Scale) -> str:
    """Zero-length strokes with round caps: one path instead of hundreds of circles."""
    kept = extremes(trace.values, DOTS)
    few = " few" if len(kept) <= FEW else ""
    return path("".join(f"M{_at(x(steps[i]), y(trace.values[i]))}h0" for i in kept), f"dots{few} c{index}")


def _line(steps: tuple[int, ...], trace: Trace, index: int, x: Scale, y: Scale) -> str:
    runs = _runs(trace.values)
    return path("".join(_stroke([(x(steps[i]), y(trace.values[i])) for i in run]) for run in runs), f"line c{index}")


def _band(steps: tuple[int, ...], trace: Trace, index: int, x: Scale, y: Scale) -> str:
    both = [None if low is None or high is None else 0.0 for low, high in zip(trace.low, trace.high, strict=True)]
    outlines = []
    for run in _runs(both):
        corners = [(x(steps[i]), i) for i in run]
        if len(run) == 1:
            corners = [(corners[0][0] + side, run[0]) for side in (-HALF_DOT, HALF_DOT)]
        upper = [_at(at, y(trace.high[i])) for at, i in corners]
        lower = [_at(at, y(trace.low[i])) for at, i in reversed(corners)]
        outlines.append(f"M{'L'.join(upper + lower)}Z")
    return path("".join(outlines), f"band c{index}")


def _runs(values: Values) -> list[list[int]]:
    """Runs of indices to join, thinned and broken where nothing is logged."""
    indices = thinned(len(values), LINE_POINTS)
    return [list(run) for logged, run in groupby(indices, key=lambda i: values[i] is not None) if logged]


def _stroke(corners: list[tuple[float, float]]) -> str:
    """A line through the corners; a dot if there is only one."""
    joined = "L".join(_at(*corner) for corner in corners)
    return f"M{joined}" if len(corners) > 1 else f"M{joined}h0"


def _at(x: float, y: float) -> str:
    return f"{short(x)} {short(y)}"


ROW, BELOW = 62.0, 34.0
LEFT, RIGHT = 84.0, 384.0


@dataclass(frozen=True)
class Pair:
    """One measure of both models."""

    label: str
    base: Interval
    trained: Interval


def draw_intervals(title: str, pairs: tuple[Pair, ...]) -> str:
    """The SVG; the base model's marks are hollow, the trained model's filled."""
    area = Area(LEFT, RIGHT, 6, 6 + ROW * len(pairs))
    x = Scale(0, 1, area.left, area.right)
    quarters = (0, 0.25, 0.5, 0.75, 1)
    parts = [line(x(q), area.top, x(q), area.bottom, "rule") for q in quarters]
    parts += vertical_labels(area, x, quarters, [percent(q, 0) for q in quarters])
    for row, pair in enumerate(pairs):
        parts += _pair(pair, area.top + ROW * row, x)
    return picture(describe_intervals(title, pairs), (WIDTH, area.bottom + BELOW), parts)


def describe_intervals(title: str, pairs: tuple[Pair, ...]) -> str:
    """A one-sentence description of the chart."""
    found = (f"{p.label} {percent(p.base.estimate)} before, {percent(p.trained.estimate)} after" for p in pairs)
    return f"{title}: {'; '.join(found)}"


def _pair(pair: Pair, top: float, x: Scale) -> list[str]:
    upper, lower = top + 20, top + 42
    return [
        text(pair.label, LEFT - 12, top + 35, "end", "row"),
        *_whisker(pair.base, upper, x, "base"),
        *_whisker(pair.trained, lower, x, "trained"),
    ]


def _whisker(interval: Interval, y: float, x: Scale, model: str) -> list[str]:
    return [
        line(x(interval.low), y, x(interval.high), y, f"whisker {model}"),
        element("circle", class_=f"mark {model}", cx=x(interval.estimate), cy=y, r=5.5),
        text(percent(interval.estimate), WIDTH - 2, y + 5, "end", f"value {model}"),
    ]
