"""Ticks, smoothing, thinning, and the drawings made of them."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.evaluation import Interval
from grpo_dist.report import charts
from grpo_dist.report.charts import LineChart, Trace
from grpo_dist.report.numbers import (
    data_size,
    duration,
    extremes,
    number,
    percent,
    points,
    smooth,
    smoothing_window,
    thinned,
)
from grpo_dist.text import plural

logged = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-9)
numbers_written = {
    None: "–", 0: "0", 0.05: "0.05", 1.0: "1", 2.345: "2.35", 42: "42", 999.6: "1,000", 12345: "12,345",
    -0.5: "−0.5", 4e-6: "4e−6", -1.25e-5: "−1.25e−5",
}  # fmt: skip


@given(logged, logged)
def test_covering_ticks_cover_and_are_told_apart(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    marks = charts.covering(low, high)
    step = marks[1] - marks[0]
    assert marks[0] <= low + step * 1e-6
    assert marks[-1] >= high - step * 1e-6
    assert 2 <= len(marks) <= 7
    if high - low > 1e-6 * max(abs(low), abs(high)):
        assert len(set(charts.labels(marks))) == len(marks)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ("0.00", "0.25", "0.50", "0.75", "1.00")),
        (-2.1, 4.8, ("−4", "−2", "0", "2", "4", "6")),
        (0, 4e-6, ("0", "1e−6", "2e−6", "3e−6", "4e−6")),
        (0, 2900, ("0", "1k", "2k", "3k")),
        (0, 36_000, ("0", "10k", "20k", "30k", "40k")),
        (0, 0, ("0.00", "0.25", "0.50", "0.75", "1.00")),
    ],
)
def test_tick_labels(low: float, high: float, expected: tuple[str, ...]) -> None:
    assert charts.labels(charts.covering(low, high)) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_step_ticks_are_whole_and_within(a: int, b: int) -> None:
    marks = charts.whole_within(min(a, b), max(a, b))
    assert all(type(mark) is int and min(a, b) <= mark <= max(a, b) for mark in marks)
    assert len(marks) <= 7


@given(st.lists(st.none() | logged, max_size=60), st.integers(0, 5))
def test_smoothing_stays_between_the_lowest_and_highest(values: list[float | None], half: int) -> None:
    found = smooth(values, 2 * half + 1)
    present = [v for v in values if v is not None]
    assert len(found) == len(values)
    for value in found:
        if value is not None:
            assert min(present) - 1e-3 <= value <= max(present) + 1e-3


def test_smoothing_by_hand() -> None:
    assert smooth([1.0, None, 4.0, 7.0], 3) == [1.0, 2.5, 5.5, 5.5]
    assert smooth([None, None, None], 3) == [None, None, None]
    assert [smoothing_window(n) for n in (1, 14, 15, 50, 300)] == [1, 1, 3, 5, 23]


@given(st.integers(0, 2000), st.integers(2, 100))
def test_thinning_keeps_both_ends(count: int, limit: int) -> None:
    kept = thinned(count, limit)
    assert len(kept) == min(count, limit)
    assert kept == sorted(set(kept))
    assert count == 0 or (kept[0], kept[-1]) == (0, count - 1)


@given(st.lists(st.none() | logged, max_size=400))
def test_extremes_keep_the_lowest_and_highest(values: list[float | None]) -> None:
    kept = [values[i] for i in extremes(values, 20)]
    present = [v for v in values if v is not None]
    assert len(kept) <= max(20, min(len(present), 20))
    assert not present or (min(kept), max(kept)) == (min(present), max(present))


@pytest.mark.parametrize("count", [1, 2, 14, 50, 10_000])
def test_a_chart_is_well_formed_and_inside_its_box(count: int) -> None:
    values = tuple(math.sin(i / 9) for i in range(count))
    trace = Trace('a<b & "c"', values, tuple(v - 1 for v in values), tuple(v + 1 for v in values))
    drawing = charts.draw(LineChart("Title <i>", tuple(range(1, count + 1)), (trace,)))
    root = ET.fromstring(drawing)
    assert root.attrib["role"] == "img"
    assert "a<b" in root.attrib["aria-label"] and root.find("title").text == root.attrib["aria-label"]
    places = [float(n) for p in root.iter("path") for n in p.attrib["d"].replace("h0", "").translate(APART).split()]
    assert places and all(0 <= x <= 480 for x in places[::2]) and all(0 <= y <= 264 for y in places[1::2])
    assert len(drawing) < 20_000


APART = str.maketrans("MLZ", "   ")


def test_a_logarithmic_axis_has_equal_room_for_every_power_of_ten() -> None:
    chart = LineChart("x", (1, 2, 3), (Trace("x", (1e-6, 1e-4, 1e-2)),), log=True)
    root = ET.fromstring(charts.draw(chart))
    names = [text.text for text in root.iter("text")]
    assert names[:5] == ["1e−6", "1e−5", "1e−4", "0.001", "0.01"]
    line = next(p for p in root.iter("path") if p.attrib["class"].startswith("line"))
    heights = [float(n) for n in line.attrib["d"].translate(APART).split()[1::2]]
    assert heights == [218.0, 115.0, 12.0]


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_decades_cover_and_are_few(a: float, b: float) -> None:
    marks = charts.decades(min(a, b), max(a, b))
    assert marks[0] <= min(a, b) * (1 + 1e-6) and max(a, b) <= marks[-1] * (1 + 1e-6)
    assert 2 <= len(marks) <= 6


def test_a_line_breaks_where_nothing_was_logged() -> None:
    values = (1.0, 2.0, None, None, 3.0)
    root = ET.fromstring(charts.draw(LineChart("x", (1, 2, 3, 4, 5), (Trace("x", values),))))
    line = next(p for p in root.iter("path") if p.attrib["class"].startswith("line"))
    assert line.attrib["d"].count("M") == 2
    assert line.attrib["d"].endswith("h0"), "a lone value is drawn as a dot"


def test_intervals_are_drawn_to_scale() -> None:
    pair = charts.Pair("Greedy", Interval(0.5, 0.4, 0.6), Interval(1.0, 0.9, 1.0))
    root = ET.fromstring(charts.draw_intervals("Accuracy", (pair,)))
    centres = {c.attrib["class"]: float(c.attrib["cx"]) for c in root.iter("circle")}
    assert centres == {"mark base": 234.0, "mark trained": 384.0}
    assert root.attrib["aria-label"] == "Accuracy: Greedy 50.0% before, 100.0% after"


@pytest.mark.parametrize(("value", "text"), numbers_written.items())
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_words_for_quantities() -> None:
    assert (percent(0.5512), percent(None), percent(0.95, 0)) == ("55.1%", "–", "95%")
    assert (points(0.418), points(-0.02)) == ("+41.8", "−2.0")
    assert (data_size(512), data_size(660_127), data_size(66.1e6), data_size(None)) == (
        "512 B",
        "660 kB",
        "66.1 MB",
        "–",
    )
    assert (duration(9), duration(75), duration(7322)) == ("9 s", "1 min 15 s", "2 h 2 min")
    assert (plural(1, "step"), plural(10_000, "step"), plural(2, "process", "processes")) == (
        "1 step",
        "10,000 steps",
        "2 processes",
    )
