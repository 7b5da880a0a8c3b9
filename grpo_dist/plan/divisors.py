"""Whole numbers that share out evenly."""

from __future__ import annotations

LARGEST = 65_536
"""No micro-batch and no number of nodes is larger."""


def largest_divisor(number: int, limit: int) -> int:
    """Largest divisor of number that is at most limit, and at most 65,536."""
    return next(divisor for divisor in range(min(number, limit, LARGEST), 0, -1) if number % divisor == 0)
