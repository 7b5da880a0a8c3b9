"""Values of a data set as text."""

from __future__ import annotations

import math
import re
from typing import Any

EXACT_INTEGERS = 1e16
"""Floats below this print all digits of an integral value."""
PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


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


def is_plain_number(text: str) -> bool:
    """Digits with sign, point and exponent, as `pandas.to_numeric` reads them: `-3`, ` 0.5 `, `1e5`; not `1,234`."""
    return PLAIN_NUMBER.fullmatch(text.strip()) is not None
