"""Whether two expressions have the same value, by computing it: exactly if they are rational, else to 60 digits.

Expressions with variables are compared at fixed points (Schwartz–Zippel). Every step has a bounded cost: anything too
large to compute raises `Unreadable`, so that no pair takes long and no result depends on time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from grpo_dist.rewards.answers.functions import FUNCTIONS, power
from grpo_dist.rewards.answers.precision import Undefined, bounded, divided, inexact, is_real, mp_context
from grpo_dist.rewards.answers.trees import difference, symbols
from grpo_dist.rewards.answers.types import Bindings, Tree, Unreadable

_SAME = Fraction(1, 10**35)
_NOTHING = Fraction(1, 10**45)
_LOST = Fraction(1, 10**33)
_POINTS = 12
_ENOUGH = 3
"""Points at which both must have a value."""


def equal_value(left: Tree, right: Tree) -> bool:
    """Whether both are equal wherever both are real; if they never are, everywhere. Raises: Unreadable."""
    return _agree(left, right, _same)


def proportional(left: Tree, right: Tree) -> bool:
    """Whether one is a non-zero multiple of the other. Raises: Unreadable."""
    ratios = []
    for point in _points(symbols(left) | symbols(right)):
        values = _values(left, right, point)
        if values is None:
            continue
        if _is_zero(values[0]) or _is_zero(values[1]):
            return False
        ratios.append(divided(*values))
    return len(ratios) >= _ENOUGH and all(_same(ratios[0], ratio) for ratio in ratios[1:])


def rounds_to(exact: Tree, decimal: Tree, tolerance: Fraction) -> bool:
    """Whether a decimal fraction is the value of `exact`; within `tolerance` of it where that is irrational.

    Raises: Unreadable.
    """
    values = _values(exact, decimal, {})
    if values is None:
        return False
    return _same(*values) if isinstance(values[0], Fraction) else _same(*values, tolerance)


def equal_sides(left: tuple[Tree, Tree], right: tuple[Tree, Tree]) -> bool:
    """Whether two equations are equivalent: the difference of sides of one is a multiple of that of the other."""
    return proportional(difference(*left), difference(*right))


def _agree(left: Tree, right: Tree, same: Callable[[Any, Any], bool]) -> bool:
    names = symbols(left) | symbols(right)
    both = [values for point in _points(names) if (values := _values(left, right, point)) is not None]
    real = [values for values in both if all(is_real(value) for value in values)]
    compared = real if len(real) >= min(_ENOUGH, len(both)) and real else both
    return len(compared) >= (_ENOUGH if names else 1) and all(same(*values) for values in compared)


def _points(names: frozenset[str]) -> list[Bindings]:
    """Points to evaluate at: small and large, positive and mixed; always the same for the same names."""
    if not names:
        return [{}]
    chance = random.Random(20_06)
    points = []
    for place in range(_POINTS):
        size = (1, 4, 40, 2, 1, 9)[place % 6]
        signs = (1,) if place % 6 < 3 else (-1,) if place % 6 == 3 else (1, -1)
        points.append(
            {name: chance.choice(signs) * Fraction(chance.randrange(101, 997), 997) * size for name in sorted(names)}
        )
    return points


def _values(left: Tree, right: Tree, point: Bindings) -> tuple[Any, Any] | None:
    try:
        return _Evaluator(point).value(left), _Evaluator(point).value(right)
    except (ArithmeticError, ValueError, TypeError) as error:
        if isinstance(error, Unreadable):
            raise
        return None


def _is_zero(value: Any) -> bool:
    return value == 0


def _same(left: Any, right: Any, tolerance: Fraction = _SAME) -> bool:
    if isinstance(left, Fraction) and isinstance(right, Fraction) and tolerance is _SAME:
        return left == right
    left, right = inexact(left), inexact(right)
    return abs(left - right) <= inexact(tolerance) * max(abs(left), abs(right))


class _Evaluator:
    """The value of trees at one point."""

    def __init__(self, point: Bindings) -> None:
        self.point = point

    def value(self, tree: Tree) -> Any:
        return getattr(self, f"_{tree[0]}")(*tree[1:])

    def _number(self, value: Fraction) -> Any:
        return value

    def _symbol(self, name: str) -> Any:
        return self.point[name]

    def _constant(self, name: str) -> Any:
        mp = mp_context()
        return {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}[name] * 1

    def _add(self, *terms: Tree) -> Any:
        values = [self.value(term) for term in terms]
        if all(isinstance(value, Fraction) for value in values):
            return bounded(sum(values, Fraction(0)))
        values = [inexact(value) for value in values]
        total = mp_context().fsum(values)
        largest = max(map(abs, values))
        if any(value and abs(value) < inexact(_LOST) * largest for value in values):
            raise Undefined  # a term that would be lost: 2^{30000} + 1 is not 2^{30000}
        # sqrt(8) - 2 sqrt(2) leaves a rounding error.
        return Fraction(0) if abs(total) <= inexact(_NOTHING) * largest else total

    def _multiply(self, *factors: Tree) -> Any:
        product: Any = Fraction(1)
        for factor in factors:
            value = self.value(factor)
            if isinstance(product, Fraction) and isinstance(value, Fraction):
                product = bounded(product * value)
            else:
                product = inexact(product) * inexact(value)
        return product

    def _divide(self, above: Tree, below: Tree) -> Any:
        top, bottom = self.value(above), self.value(below)
        if bottom == 0:
            raise Undefined
        return bounded(divided(top, bottom))

    def _power(self, base: Tree, exponent: Tree) -> Any:
        return power(self.value(base), self.value(exponent))

    def _call(self, function: str, *arguments: Tree) -> Any:
        return FUNCTIONS[function](*(self.value(argument) for argument in arguments))
