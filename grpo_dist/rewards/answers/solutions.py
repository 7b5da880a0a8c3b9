"""Different types for the same solutions: an inequality as an interval, named coordinates as a point."""

from __future__ import annotations

from fractions import Fraction

from grpo_dist.rewards.answers.trees import symbols
from grpo_dist.rewards.answers.types import (
    Answer,
    Expression,
    Gathering,
    Listing,
    Named,
    Quantity,
    Relation,
    Sequence,
    Words,
)

_INFINITY = Expression(("symbol", "infty"))
_MINUS_INFINITY = Expression(("multiply", ("number", Fraction(-1)), ("symbol", "infty")))


def solutions(answer: Answer) -> Answer | None:
    """The set of numbers that an answer describes: `x > 3` and `(3, \\infty)`, `all real numbers` and its interval."""
    if isinstance(answer, Relation):
        return _interval(answer)
    if isinstance(answer, Listing) and answer.joined == "or":
        members = [solutions(member) for member in answer.members]
        return Gathering("union", tuple(members)) if all(isinstance(one, Sequence) for one in members) else None
    if isinstance(answer, Words) and answer.text == "all real numbers":
        return Sequence("(", ")", (_MINUS_INFINITY, _INFINITY))
    return answer if isinstance(answer, (Sequence, Gathering)) else None


def _interval(relation: Relation) -> Sequence | None:
    """The interval of an inequality in one variable that is alone on its side."""
    if not set(relation.signs) <= {"<", r"\le"}:
        return None
    sides, signs = list(relation.sides), list(relation.signs)
    if len(sides) == 2:
        if _is_variable(sides[0]):
            sides, signs = [_MINUS_INFINITY, *sides], ["<", *signs]
        else:
            sides, signs = [*sides, _INFINITY], [*signs, "<"]
    if len(sides) != 3 or not _is_variable(sides[1]) or not (_is_given(sides[0]) and _is_given(sides[2])):
        return None
    return Sequence("(" if signs[0] == "<" else "[", ")" if signs[1] == "<" else "]", (sides[0], sides[2]))


def _is_variable(side: Answer) -> bool:
    return isinstance(side, Expression) and side.tree[0] == "symbol" and side.tree[1] != "infty"


def _is_given(side: Answer) -> bool:
    return isinstance(side, Quantity) or (isinstance(side, Expression) and symbols(side.tree) <= frozenset(("infty",)))


def coordinates(listing: Listing) -> Sequence | None:
    """`x = 1, y = 2` as a point; None if the names are not in alphabetical order."""
    names = [one.name for one in listing.members if isinstance(one, Named)]
    if len(names) != len(listing.members) or names != sorted(set(names)):
        return None
    return Sequence("(", ")", tuple(one.value for one in listing.members))
