r"""Whether an answer is correct: compared within a type, and by a few rules between types.

The answer at the end of a calculation counts: `17*2 = 34`, `x = \frac{6}{10} = \frac{3}{5}`, `m+n = 73`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace
from fractions import Fraction

from grpo_dist.rewards.answers import evaluate
from grpo_dist.rewards.answers.plain_words import same_words
from grpo_dist.rewards.answers.types import (
    Answer,
    Choice,
    Clock,
    Date,
    Expression,
    Gathering,
    InBase,
    Listing,
    Matrix,
    Named,
    Opaque,
    Quantity,
    Ratio,
    Relation,
    Sequence,
    Unreadable,
    Words,
    coordinates,
    renamed,
    solutions,
    symbols,
    tree_of,
    worth,
)


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


DECIMALS = 12
"""A decimal fraction with at least this many places may stand for an irrational number."""
MAX_MATCHED = 40
_FUNCTION = re.compile(r"([A-Za-z])\(([a-df-hj-z])\)")


def equal(guess: Answer, truth: Answer) -> bool:
    """Whether `guess` is the answer `truth`. If the reference is a number, the guess must be one too, not unevaluated
    arithmetic."""
    if isinstance(guess, Choice) or isinstance(truth, Choice):
        return _equal_choice(guess, truth)
    if isinstance(guess, Relation) and not _is_equation(truth) and (found := result(guess)) is not None:
        return equal(found, truth)
    if isinstance(guess, Named) or isinstance(truth, Named):
        return _equal_named(guess, truth)
    if isinstance(truth, Quantity):
        return isinstance(guess, Quantity) and _equal_quantity(guess, truth)
    if isinstance(truth, Expression):
        return isinstance(guess, (Expression, Quantity)) and _equal_expression(guess, truth)
    for kind, compare in _WITHIN.items():
        if isinstance(guess, kind) and isinstance(truth, kind):
            return compare(guess, truth)
    return _across(guess, truth)


def _is_equation(answer: Answer) -> bool:
    return isinstance(answer, Relation) or getattr(answer, "relation", None) is not None


def _equal_quantity(guess: Quantity, truth: Quantity) -> bool:
    """A bare 50 equals a right answer `50%`: the question then asks for percent."""
    if guess.divided and not truth.divided:
        return False
    if not _units_agree(guess.unit or "%" * guess.percent, truth.unit or "%" * truth.percent):
        return False
    if truth.percent and not guess.percent and guess.value == truth.value:
        return True
    return worth(guess) == worth(truth)


def _units_agree(guess: str, truth: str) -> bool:
    """A unit may be omitted; two different units never agree."""
    return not (guess and truth) or guess == truth


def _equal_expression(guess: Expression | Quantity, truth: Expression) -> bool:
    if not _units_agree(guess.unit, truth.unit):
        return False
    tree = tree_of(guess)
    if isinstance(guess, Quantity) and guess.decimals >= DECIMALS and not symbols(truth.tree):
        return _safely(evaluate.rounds_to, truth.tree, tree, Fraction(1, 10**DECIMALS))
    return tree == truth.tree or _safely(evaluate.equal_value, tree, truth.tree)


def _safely(compare: Callable[..., bool], *arguments: object) -> bool:
    try:
        return compare(*arguments)
    except Unreadable:
        return False


def _equal_choice(guess: Answer, truth: Answer) -> bool:
    """By letter, or one side's letter or text alone; both, where both have both."""
    if isinstance(guess, Choice) and isinstance(truth, Choice):
        beside = guess.beside is None or truth.beside is None or equal(guess.beside, truth.beside)
        return guess.letter == truth.letter and beside
    one, other = (guess, truth) if isinstance(guess, Choice) else (truth, guess)
    if isinstance(other, Expression) and other.tree[0] == "symbol" and re.fullmatch("[A-Ka-e]", other.tree[1]):
        return other.tree[1] == one.letter
    if one.beside is None:
        return False
    return equal(one.beside, truth) if one is guess else equal(guess, one.beside)


def _equal_named(guess: Answer, truth: Answer) -> bool:
    if isinstance(guess, Named) and isinstance(truth, Named):
        if guess.name == truth.name and equal(guess.value, truth.value):
            return True
        if (alike := _with_variable_of(truth, guess)) is not None:
            return equal(alike, truth)
        return _equal_equation(guess.relation, truth.relation)
    one, other = (guess, truth) if isinstance(guess, Named) else (truth, guess)
    if isinstance(other, Listing) and one.name.startswith("("):
        return _equal_named_point(one, other)
    if isinstance(other, Relation) and one.relation is not None:
        return _equal_equation(one.relation, other)
    if isinstance(other, Listing) and not isinstance(one.value, (Listing, Gathering)):
        return False
    return equal(one.value, other) if one is guess else equal(other, one.value)


def _with_variable_of(truth: Named, guess: Named) -> Named | None:
    """`f(n) = n` as `f(x) = x`: what a function's variable is called means nothing."""
    names = [_FUNCTION.fullmatch(one.name) for one in (guess, truth)]
    if None in names or names[0][1] != names[1][1] or guess.name == truth.name:
        return None
    old, new = names[0][2], names[1][2]
    if not isinstance(guess.value, Expression) or new in symbols(guess.value.tree):
        return replace(guess, name=truth.name) if isinstance(guess.value, Quantity) else None
    return Named(truth.name, replace(guess.value, tree=renamed(guess.value.tree, old, new)))


def _equal_named_point(point: Named, listing: Listing) -> bool:
    """`(x,y) = (1,2)` is `y = 2, x = 1`."""
    names = point.name[1:-1].split(",")
    values = {one.name: one.value for one in listing.members if isinstance(one, Named)}
    if not isinstance(point.value, Sequence) or set(values) != set(names) or len(listing.members) != len(names):
        return False
    return _pairwise([values[name] for name in names], point.value.members)


def _equal_equation(guess: Relation | None, truth: Relation | None) -> bool:
    """Two equations with the same solutions, recognised when one is a multiple of the other."""
    if guess is None or truth is None or guess.signs != ("=",) or truth.signs != ("=",):
        return False
    sides = (*guess.sides, *truth.sides)
    if not all(isinstance(side, (Expression, Quantity)) for side in sides):
        return False
    trees = [tree_of(side) for side in sides]
    if not (symbols(("add", *trees[:2])) == symbols(("add", *trees[2:])) != frozenset()):
        return False
    return _safely(evaluate.equal_sides, (trees[0], trees[1]), (trees[2], trees[3]))


def _equal_relation(guess: Relation, truth: Relation) -> bool:
    if guess.signs == truth.signs and _pairwise(guess.sides, truth.sides):
        return True
    if guess.signs == truth.signs and set(guess.signs) <= {"=", r"\ne"} and _pairwise(guess.sides[::-1], truth.sides):
        return True
    return _equal_equation(guess, truth)


def _pairwise(guesses: Many[Answer], truths: Many[Answer]) -> bool:
    return len(guesses) == len(truths) and all(map(equal, guesses, truths))


def _equal_listing(guess: Listing, truth: Listing) -> bool:
    if guess.ordered or truth.ordered:
        return _pairwise(guess.members, truth.members)
    if {guess.joined, truth.joined} == {"and", "or"} and any(map(_is_statement, truth.members)):
        return False
    if (len(_names(guess.members)) > 1) != (len(_names(truth.members)) > 1):
        return False
    guesses, truths = _without_common_name(guess.members, truth.members)
    return _matched(guesses, truths)


def _is_statement(answer: Answer) -> bool:
    """`and` and `or` differ between statements and letters, not between the numbers that solve an equation."""
    return isinstance(answer, Relation) or (isinstance(answer, Expression) and answer.tree[0] == "symbol")


def _names(members: Many[Answer]) -> set[str]:
    return {one.name for one in members if isinstance(one, Named)}


def _without_common_name(guesses: Many[Answer], truths: Many[Answer]) -> tuple[Many[Answer], Many[Answer]]:
    """Plain values if only one side names them, all with the same name: `x = 1 or x = 2` is `1, 2`."""
    names = [{one.name if isinstance(one, Named) else None for one in members} for members in (guesses, truths)]
    if sorted(len(found) for found in names) == [1, 1] and (names[0] == {None}) != (names[1] == {None}):
        return [getattr(one, "value", one) if isinstance(one, Named) else one for one in guesses], [
            one.value if isinstance(one, Named) else one for one in truths
        ]
    return guesses, truths


def _matched(guesses: Many[Answer], truths: Many[Answer]) -> bool:
    """Whether the elements can be matched one to one."""
    if len(guesses) != len(truths):
        return False
    if len(truths) > MAX_MATCHED:
        return _pairwise(guesses, truths) or _sorted_alike(guesses, truths)
    left = list(truths)
    for guess in guesses:
        partner = next((place for place, truth in enumerate(left) if equal(guess, truth)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _sorted_alike(guesses: Many[Answer], truths: Many[Answer]) -> bool:
    """The same for long lists of numbers."""
    if not all(isinstance(one, Quantity) for one in (*guesses, *truths)):
        return False
    return _pairwise(*(sorted(members, key=worth) for members in (guesses, truths)))


def _equal_gathering(guess: Gathering, truth: Gathering) -> bool:
    if guess.kind != truth.kind:
        return False
    return _matched(_once(guess.members), _once(truth.members))


def _once(members: Many[Answer]) -> list[Answer]:
    """Without duplicates."""
    kept: list[Answer] = []
    for member in members[:MAX_MATCHED]:
        if not any(equal(member, other) for other in kept):
            kept.append(member)
    return [*kept, *members[MAX_MATCHED:]]


def _equal_sequence(guess: Sequence, truth: Sequence) -> bool:
    brackets = (guess.opening, guess.closing) == (truth.opening, truth.closing)
    return brackets and _pairwise(guess.members, truth.members)


def _equal_matrix(guess: Matrix, truth: Matrix) -> bool:
    return guess.determinant == truth.determinant and (
        len(guess.rows) == len(truth.rows) and all(map(_pairwise, guess.rows, truth.rows))
    )


def _equal_ratio(guess: Ratio, truth: Ratio) -> bool:
    """In lowest terms or not; a ratio that may be a time of day is not reduced."""
    if (guess.clock and truth.clock) or len(guess.parts) != len(truth.parts):
        return _pairwise(guess.parts, truth.parts)
    (g, *guesses), (t, *truths) = ([tree_of(part) for part in ratio.parts] for ratio in (guess, truth))
    return all(
        _safely(evaluate.equal_value, ("multiply", g, right), ("multiply", t, left))
        for left, right in zip(guesses, truths, strict=True)
    )


def _equal_clock(guess: Clock, truth: Clock) -> bool:
    if guess.half and truth.half:
        return guess == truth
    return any(_day_second(guess) == second for second in (_day_second(truth), _written(truth))) or (
        _written(guess) == _day_second(truth)
    )


def _written(clock: Clock) -> int:
    return clock.hour * 3600 + clock.minute * 60 + clock.second


def _day_second(clock: Clock) -> int:
    hour = clock.hour % 12 + (12 if clock.half == "pm" else 0) if clock.half else clock.hour
    return hour * 3600 + clock.minute * 60 + clock.second


def _equal_date(guess: Date, truth: Date) -> bool:
    if guess.weekday and truth.weekday and guess.weekday != truth.weekday:
        return False
    same_year = guess.year == truth.year or guess.year is None or truth.year is None
    return same_year and (guess.month, guess.day) == (truth.month, truth.day)


_WITHIN = {
    Words: lambda guess, truth: same_words(guess.text, truth.text),
    Opaque: lambda guess, truth: _braceless(guess.text) == _braceless(truth.text),
    Listing: _equal_listing,
    Sequence: _equal_sequence,
    Gathering: _equal_gathering,
    Matrix: _equal_matrix,
    Relation: _equal_relation,
    Ratio: _equal_ratio,
    Clock: _equal_clock,
    Date: _equal_date,
    InBase: lambda guess, truth: guess == truth,
}


def _braceless(text: str) -> str:
    r"""`x^{2}` and `x^2` are the same text."""
    return re.sub(r"(?<=[\^_])\{(\w|\\[A-Za-z]+)\}", r"\1", text)


def _across(guess: Answer, truth: Answer) -> bool:
    """Different types with the same meaning."""
    if {type(guess), type(truth)} == {Gathering, Listing}:
        gathering = guess if isinstance(guess, Gathering) else truth
        if gathering.kind == "set":
            return not _is_ordered(guess, truth) and _matched(*map(_once, (guess.members, truth.members)))
    if {type(guess), type(truth)} == {Sequence, Listing}:
        points = [coordinates(one) if isinstance(one, Listing) else one for one in (guess, truth)]
        if None not in points:
            return _equal_sequence(*points)
    if {type(guess), type(truth)} == {Clock, Ratio}:
        return _clock_of_ratio(guess, truth)
    left, right = solutions(guess), solutions(truth)
    if left is None or right is None or (left is guess and right is truth):
        return False
    return equal(left, right) if (type(left), type(right)) != (type(guess), type(truth)) else False


def _is_ordered(*answers: Answer) -> bool:
    return any(getattr(one, "ordered", False) for one in answers)


def _clock_of_ratio(guess: Answer, truth: Answer) -> bool:
    """`3:30` may leave out am or pm."""
    clock, ratio = (guess, truth) if isinstance(guess, Clock) else (truth, guess)
    if not ratio.clock:
        return False
    hour, minute = (int(part.value) for part in ratio.parts)
    return _equal_clock(Clock(hour, minute, 0), clock)
