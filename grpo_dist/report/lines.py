"""A chart of metrics over the steps: every step as a dot, a smoothed line, and a band between two further metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from grpo_dist.report import svg, ticks
from grpo_dist.report.numbers import number, percent
from grpo_dist.report.series import Values, extremes, present, smooth, smoothing_window, thinned

LINE_POINTS, DOTS, FEW = 240, 320, 15
"""Most corners of a line, most dots of a metric, and dots that are drawn larger."""
HALF_DOT = 4.0


@dataclass(frozen=True)
class Trace:
    """One metric; `low` and `high` bound its band. All have one value per step."""

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


def draw(chart: LineChart, width: float = svg.WIDTH) -> str:
    """The SVG of a chart that has values."""
    area = svg.Area(left=56, right=width - 20, top=12, bottom=svg.HEIGHT - 46)
    smoothed = [_smoothed(trace, chart.window) for trace in chart.traces]
    shown = [*chart.bounds, *_extent(chart.traces), *_extent(smoothed)]
    marks = (ticks.decades if chart.log else ticks.covering)(min(shown), max(shown))
    y = (svg.LogScale if chart.log else svg.Scale)(marks[0], marks[-1], area.bottom, area.top)
    x = _step_scale(chart.steps, area)
    return svg.picture(
        describe(chart),
        (width, svg.HEIGHT),
        [
            *svg.horizontal_grid(area, y, marks, _names(chart, marks)),
            *_step_axis(chart.steps, area, x),
            *(_band(chart.steps, trace, i, x, y) for i, trace in enumerate(smoothed)),
            *(_dots(chart.steps, trace, i, x, y) for i, trace in enumerate(chart.traces)),
            *(_line(chart.steps, trace, i, x, y) for i, trace in enumerate(smoothed)),
        ],
    )


def describe(chart: LineChart) -> str:
    """The chart in a sentence."""
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
    return ticks.percent_labels(marks) if chart.as_percent else ticks.labels(marks)


def _smoothed(trace: Trace, window: int) -> Trace:
    return Trace(trace.label, *(smooth(values, window) for values in (trace.values, trace.low, trace.high)))


def _extent(traces: list[Trace] | tuple[Trace, ...]) -> Iterator[float]:
    for trace in traces:
        for values in (trace.values, trace.low, trace.high):
            yield from present(values)


def _step_scale(steps: tuple[int, ...], area: svg.Area) -> svg.Scale:
    room = 1 if steps[0] == steps[-1] else 0
    return svg.Scale(steps[0] - room, steps[-1] + room, area.left + 8, area.right)


def _step_axis(steps: tuple[int, ...], area: svg.Area, x: svg.Scale) -> list[str]:
    marks = ticks.whole_within(steps[0], steps[-1])
    middle = (area.left + area.right) / 2
    return [
        svg.line(area.left, area.bottom, area.right, area.bottom, "axis"),
        *svg.vertical_labels(area, x, marks, ticks.labels(marks)),
        svg.text("step", middle, svg.HEIGHT - 4, "middle", "tick"),
    ]


def _dots(steps: tuple[int, ...], trace: Trace, index: int, x: svg.Scale, y: svg.Scale) -> str:
    """Zero-length strokes with round caps: one path instead of hundreds of circles."""
    kept = extremes(trace.values, DOTS)
    few = " few" if len(kept) <= FEW else ""
    return svg.path("".join(f"M{_at(x(steps[i]), y(trace.values[i]))}h0" for i in kept), f"dots{few} c{index}")


def _line(steps: tuple[int, ...], trace: Trace, index: int, x: svg.Scale, y: svg.Scale) -> str:
    runs = _runs(trace.values)
    return svg.path(
        "".join(_stroke([(x(steps[i]), y(trace.values[i])) for i in run]) for run in runs), f"line c{index}"
    )


def _band(steps: tuple[int, ...], trace: Trace, index: int, x: svg.Scale, y: svg.Scale) -> str:
    both = [None if low is None or high is None else 0.0 for low, high in zip(trace.low, trace.high, strict=True)]
    outlines = []
    for run in _runs(both):
        corners = [(x(steps[i]), i) for i in run]
        if len(run) == 1:
            corners = [(corners[0][0] + side, run[0]) for side in (-HALF_DOT, HALF_DOT)]
        upper = [_at(at, y(trace.high[i])) for at, i in corners]
        lower = [_at(at, y(trace.low[i])) for at, i in reversed(corners)]
        outlines.append(f"M{'L'.join(upper + lower)}Z")
    return svg.path("".join(outlines), f"band c{index}")


def _runs(values: Values) -> list[list[int]]:
    """Indices to join, thinned, broken where nothing is logged."""
    indices = thinned(len(values), LINE_POINTS)
    return [list(run) for logged, run in groupby(indices, key=lambda i: values[i] is not None) if logged]


def _stroke(corners: list[tuple[float, float]]) -> str:
    """A line through the corners; a dot where there is only one."""
    joined = "L".join(_at(*corner) for corner in corners)
    return f"M{joined}" if len(corners) > 1 else f"M{joined}h0"


def _at(x: float, y: float) -> str:
    return f"{svg.short(x)} {svg.short(y)}"
