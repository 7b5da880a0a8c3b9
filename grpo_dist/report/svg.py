"""Drawing: elements, and the frame that every chart shares. Lengths are units of the view box.

A chart is drawn once for all widths. The style sheet gives its text a size for desktops and one for phones, so the
margins here have room for the larger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from math import log10

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
    """The same for values above 0, by their logarithms."""

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
    """A whole SVG of `size` (width, height), described for those who do not see it."""
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
    """A length with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else short(value)
