r"""The answer at the end of a calculation: `17*2 = 34`, `x = \frac{6}{10} = \frac{3}{5}`, `m+n = 73`."""

from __future__ import annotations

from collections.abc import Sequence as Many

from grpo_dist.rewards.answers import evaluate
from grpo_dist.rewards.answers.trees import symbols, tree_of
from grpo_dist.rewards.answers.types import Answer, Expression, Named, Quantity, Relation, Unreadable, Words


def result(calculation: Relation) -> Answer | None:
    r"""What is calculated, named as it is; None where a step is wrong. `\sqrt{20} \approx 4.47` is `\sqrt{20}`.

    An equation of one unknown is no calculation: it is to be solved.
    """
    sides, signs = calculation.sides, calculation.signs
    if signs[-1] == r"\approx":
        sides, signs = sides[:-1], signs[:-1]
    if not set(signs) <= {"="}:
        return None
    wanted, steps = (sides[0], sides[1:]) if _is_wanted(sides[0]) else (None, sides)
    if not steps or not _all_equal(steps):
        return None
    name = wanted.text if isinstance(wanted, Words) else wanted.tree[1] if _is_name(wanted) else None
    return steps[-1] if name is None else Named(name, steps[-1])


def _is_wanted(side: Answer) -> bool:
    """Whether it stands for what is asked for: a name, or an expression of several letters."""
    return isinstance(side, Words) or _is_name(side) or (isinstance(side, Expression) and len(symbols(side.tree)) > 1)


def _is_name(side: Answer | None) -> bool:
    return isinstance(side, Expression) and side.tree[0] == "symbol"


def _all_equal(steps: Many[Answer]) -> bool:
    """Whether all are numbers, and the same one."""
    if not all(isinstance(step, (Quantity, Expression)) for step in steps):
        return False
    first, *others = map(tree_of, steps)
    try:
        return not symbols(("add", first, *others)) and all(evaluate.equal_value(first, other) for other in others)
    except Unreadable:
        return False
