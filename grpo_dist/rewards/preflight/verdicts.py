"""What functions say of right and wrong answers, problem by problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grpo_dist.rewards.preflight.cases import GOLD, WRONG, WRONG_AGAIN, Case
from grpo_dist.rewards.preflight.tried import RewardResult, judged

SAME = 1e-6
Said = Literal["right", "several", "alike", "below", "unjudged"]
"""right: gold is paid more than every other answer; several: as much as some and more than others, as a right answer
is; alike: no more than the others; below: less than each of them; unjudged: left out by all functions."""


@dataclass(frozen=True)
class Verdict:
    """One problem: what was paid for gold, and for the other answer that was paid most."""

    said: Said
    gold: float | None
    other: float | None
    completion: str
    """The one with that other answer."""


def verdicts(functions: Sequence[RewardResult], cases: Sequence[Case]) -> list[Verdict]:
    """What these functions together say of each problem. Nothing but what they paid for `cases` is looked at."""
    gold = judged(functions, GOLD)
    tried: list[list[tuple[float, str]]] = [[] for _ in gold]
    for case in cases:
        if case.name in (WRONG, WRONG_AGAIN):
            paid = judged(functions, case.name)
            for row, text, value in zip(case.problems, case.completions, paid, strict=False):
                if value is not None:
                    tried[row].append((value, text))
    rows = list(zip(gold, tried, strict=True))
    clear = [one for one, others in rows if one is not None and others and one > max(others)[0] + SAME]
    return [_verdict(one, others, min(clear, default=None)) for one, others in rows]


def undecided(found: Sequence[Verdict]) -> list[int]:
    """Problems to which another answer was paid as gold is, or more."""
    return [row for row, one in enumerate(found) if one.said not in ("right", "unjudged")]


def _verdict(gold: float | None, others: Sequence[tuple[float, str]], clear: float | None) -> Verdict:
    """`clear` is what gold is paid at least where it is paid more than every other answer; None without such a row."""
    if gold is None or not others:
        return Verdict("unjudged", gold, None, "")
    lowest, (highest, text) = min(others)[0], max(others)
    if gold > highest + SAME:
        said: Said = "right"
    elif gold < lowest - SAME:
        said = "below"
    elif gold > lowest + SAME and (clear is None or gold >= clear - SAME):
        said = "several"
    else:
        said = "alike"
    return Verdict(said, gold, highest, text)
