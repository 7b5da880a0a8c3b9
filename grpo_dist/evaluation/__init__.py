"""Comparison of base and trained model from their answers, with intervals. No model is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; fractions of problems, from 0 to 1."""

    estimate: float
    low: float
    high: float

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Interval:
        return cls(float(fields["estimate"]), float(fields["low"]), float(fields["high"]))

    @property
    def sign(self) -> int:
        """For a difference: 1 or -1 if the whole interval is above or below zero, else 0."""
        return (self.low > 0) - (self.high < 0)
