"""Round numbers for an axis."""

from __future__ import annotations

from math import ceil, floor, log10

from grpo_dist.report.numbers import MINUS


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
    """Short labels of one form for all ticks: 0.5, 1.0, 1.5 or 2e-6, 4e-6 or 10k, 20k."""
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
    """A span around a single value, so that it stands in the middle of the axis; 0 stands at its foot."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) / 2
    return (low - room, high + room) if room else (0.0, 1.0)


def _scaled(ticks: tuple[float, ...], step: float, exponent: int) -> tuple[str, ...]:
    unit = 10.0**exponent
    return tuple(_fixed(t / unit, step / unit) + f"e{exponent}".replace("-", MINUS) if t else "0" for t in ticks)


def _fixed(value: float, step: float) -> str:
    """With as many decimals as the step needs."""
    decimals = next((d for d in range(9) if abs(round(step, d) - step) < 1e-6 * step), 9)
    text = f"{value:.{decimals}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")
