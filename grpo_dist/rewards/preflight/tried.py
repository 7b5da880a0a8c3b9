"""What the functions of a configuration paid for the cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from grpo_dist.findings import Finding
from grpo_dist.rewards.preflight.cases import GOLD, SWAPPED

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class RewardResult:
    """One function, and what it did with each case."""

    name: str
    weight: float
    paid: Mapping[str, Values]
    """Case → a value for each completion; a case in which it failed is not there."""
    seconds_per_completion: float
    """Most seconds it took, over the cases."""
    failures: tuple[Finding, ...] = ()
    asks_for_columns: bool = True
    """Whether it reads columns of the data; one that does not judges length, form or style."""
    other_columns: tuple[str, ...] = ()
    """Columns it needs besides the reference answers: these may determine what is right."""

    @property
    def reads_answer(self) -> bool:
        """Whether it pays the same completion differently when given another reference answer."""
        return self.paid.get(GOLD, ()) != self.paid.get(SWAPPED, ())

    def mean(self, case: str) -> float | None:
        """Mean over the completions it rewarded; None if it returned None for all, or failed."""
        values = [value for value in self.paid.get(case, ()) if value is not None]
        return fmean(values) if values else None


def totals(functions: Sequence[RewardResult], case: str) -> tuple[float, ...]:
    """The reward of each completion, as TRL sums it: weighted, with None counting as nothing.

    Functions that failed anywhere are ignored; () if none remains.
    """
    return tuple(0.0 if one is None else one for one in judged(functions, case))


def judged(functions: Sequence[RewardResult], case: str) -> Values:
    """The same, but None for a completion for which every function returns None."""
    sound = [one for one in functions if not one.failures]
    columns = [[_worth(value, one.weight) for value in one.paid.get(case, ())] for one in sound]
    return tuple(map(_sum, zip(*columns, strict=True)))


def _worth(value: float | None, weight: float) -> float | None:
    return None if value is None else value * weight


def _sum(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) if there else None
