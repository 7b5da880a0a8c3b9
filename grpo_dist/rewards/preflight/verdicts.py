"""How functions judge right and wrong answers, problem by problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grpo_dist.rewards.preflight.cases import GOLD, WRONG, WRONG_AGAIN, Case
from grpo_dist.rewards.preflight.tried import RewardResult, judged

SAME = 1e-6
Said = Literal["right", "several", "alike", "below", "unjudged"]
"""right: gold is paid more than every other answer; several: as much as some and more than others; alike: no more than
the others; below: less than each of them; unjudged: None from all functions."""


@dataclass(frozen=True)
class Verdict:
    """One problem: what was paid for gold, and for the other answer that was paid most."""

    said: Said
    gold: float | None
    other: float | None
    completion: str
    """The case of that other answer."""


def verdicts(functions: Sequence[RewardResult], cases: Sequence[Case]) -> list[Verdict]:
    """The joint verdict of these functions on each problem. Only what they paid for `cases` is considered."""
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
    """Problems for which another answer was paid as much as gold, or more."""
    return [row for row, one in enumerate(found) if one.said not in ("right", "unjudged")]


def _verdict(gold: float | None, others: Sequence[tuple[float, str]], clear: float | None) -> Verdict:
    """`clear` is the least that gold is paid where it is paid more than every other answer; None if there is no such
    row."""
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
