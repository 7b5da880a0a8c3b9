"""Numbers formatted for a reader; and one metric over the steps: extracted from the log, smoothed and thinned.

None stands for "not logged".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Any

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


def number(value: float | None) -> str:
    """Three significant digits, thousands grouped, scientific when very small; a dash for None."""
    if value is None:
        return NOTHING
    size = abs(value)
    if 0 < size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return _minus(f"{_bare(mantissa)}e{int(exponent)}")
    if size >= 100:
        return _minus(f"{value:,.0f}")
    return _minus(_bare(f"{value:.3g}") if size else "0")


def change(first: float | None, last: float | None) -> str:
    """1.0 → 2.5 for two numbers; a dash when one is missing."""
    return NOTHING if first is None or last is None else f"{number(first)} → {number(last)}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.551 → 55.1%; a dash for None."""
    return NOTHING if fraction is None else _minus(f"{fraction * 100:.{digits}f}%")


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign: 0.42 → +42.0."""
    return _minus(f"{difference * 100:+.1f}")


def duration(seconds: float) -> str:
    """75 → 1 min 15 s; the two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def data_size(count: float | None) -> str:
    """Bytes: 660127 → 660 kB, 66100000 → 66.1 MB; a dash for None."""
    if count is None:
        return NOTHING
    units = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    name, unit = next(((name, unit) for name, unit in units.items() if count >= unit), ("B", 1.0))
    return f"{number(count / unit)} {name}"


def _bare(text: str) -> str:
    """Without insignificant zeros."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _minus(text: str) -> str:
    return text.replace("-", MINUS)


Values = Sequence[float | None]


def column(metrics: Iterable[Any], key: str) -> tuple[float | None, ...]:
    """The metric of every step."""
    return tuple(finite(record.get(key)) for record in metrics)


def finite(value: Any) -> float | None:
    """A finite number as float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def present(values: Values) -> list[float]:
    """The logged values."""
    return [value for value in values if value is not None]


def ends(values: Values) -> tuple[float | None, float | None]:
    """Means over the first and the last tenth of the logged values, each at least one value."""
    logged = present(values)
    if not logged:
        return None, None
    tenth = max(1, len(logged) // 10)
    return fmean(logged[:tenth]), fmean(logged[-tenth:])


def smoothing_window(count: int) -> int:
    """Odd number of steps to average over: about a fifteenth of all steps; 1 (no smoothing) below 15 steps."""
    return 1 if count < 15 else 2 * (count // 30) + 3


def smooth(values: Values, window: int) -> list[float | None]:
    """Centred mean over `window` values, fewer at the ends; None where the window holds no value."""
    sums = [0.0, *accumulate(value or 0.0 for value in values)]
    counts = [0, *accumulate(value is not None for value in values)]
    half, size = window // 2, len(values)
    spans = ((max(0, i - half), min(size, i + half + 1)) for i in range(size))
    return [(sums[b] - sums[a]) / (counts[b] - counts[a]) if counts[b] > counts[a] else None for a, b in spans]


def thinned(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly spread, first and last among them."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i * (count - 1) / (limit - 1)) for i in range(limit)})


def extremes(values: Values, limit: int) -> list[int]:
    """Indices of the logged values to draw as dots: all, or the lowest and highest of each of limit/2 stretches."""
    logged = [i for i, value in enumerate(values) if value is not None]
    if len(logged) <= limit:
        return logged
    edges = [i * len(logged) // (limit // 2) for i in range(limit // 2 + 1)]
    stretches = (logged[a:b] for a, b in pairwise(edges))
    kept = (pick(stretch, key=lambda i: values[i]) for stretch in stretches for pick in (min, max))
    return sorted(set(kept))
