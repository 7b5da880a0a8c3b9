"""Values of a data set as text."""

from __future__ import annotations

import math
from typing import Any

EXACT_INTEGERS = 1e16
"""Floats below this print all digits of an integral value."""


def is_missing(value: Any) -> bool:
    """None, NaN, or text without a character to see."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def as_text(value: Any) -> str:
    """A scalar as text; an integral float loses its `.0`, because a column of integers with a gap is read as floats.

    `34` → `"34"`, `34.0` → `"34"`, `0.5` → `"0.5"`, `"034"` → `"034"`.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_INTEGERS:
        return str(int(value))
    return str(value)
