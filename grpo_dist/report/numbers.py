"""Numbers formatted for a reader."""

from __future__ import annotations

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
