"""One metric over the steps: extracting it from the log, smoothing and thinning it. None stands for "not logged"."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Any

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
