"""Whether two expressions have the same value, by computing it: exactly if they are rational, else to 60 digits.

Expressions with variables are compared at fixed points (Schwartz–Zippel). Numbers are exact fractions while they are
small, else mpmath's. Every step has a bounded cost: anything too large to compute raises `Unreadable`, so that no pair
takes long and no result depends on time.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from grpo_dist.errors import RewardError
from grpo_dist.rewards.answers.types import Bindings, Tree, Unreadable, difference, symbols

if TYPE_CHECKING:
    from mpmath.ctx_mp import MPContext


DIGITS = 60
MAX_BITS = 20_000
"""Most bits of an exact number; larger ones are computed to `DIGITS` digits."""


class Undefined(ArithmeticError):
    """The expression has no value at this point."""


class _ThreadContext(threading.local):
    """A context of mpmath for each thread: its functions change the precision while they work."""

    context: MPContext | None = None


_local = _ThreadContext()


def mp_context() -> MPContext:
    if _local.context is None:
        try:
            from mpmath.ctx_mp import MPContext
        except ImportError as error:
            raise RewardError(
                f"comparing these answers needs mpmath, which cannot be imported: {error}",
                hint="pip install 'grpo-dist[train]'",
            ) from error
        _local.context = MPContext()
        _local.context.dps = DIGITS
    return _local.context


os.register_at_fork(after_in_child=lambda: setattr(_local, "context", None))


def inexact(value: Any) -> Any:
    mp = mp_context()
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def is_real(value: Any) -> bool:
    return isinstance(value, Fraction) or not mp_context().im(value)


def divided(above: Any, below: Any) -> Any:
    if isinstance(above, Fraction) and isinstance(below, Fraction):
        return above / below
    return inexact(above) / inexact(below)


def bounded(value: Any) -> Any:
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        return inexact(value)
    return value


_LARGEST = 10**15


def power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        if base == 0 and exponent <= 0:
            raise Undefined
        if isinstance(base, Fraction):
            bits = base.numerator.bit_length() + base.denominator.bit_length()
            if bits * abs(exponent) <= MAX_BITS:
                return base ** int(exponent)
        if abs(exponent) > _LARGEST:
            raise Unreadable("too large a power")
        return inexact(base) ** int(exponent)
    if base == 0:
        raise Undefined
    base, exponent = inexact(base), inexact(exponent)
    if abs(exponent) * (1 + abs(mp_context().mag(base))) > _LARGEST:
        raise Unreadable("too large a power")
    return base**exponent


def _root(inside: Any, degree: Any) -> Any:
    if not (isinstance(degree, Fraction) and degree.denominator == 1 and 1 <= degree <= 1000):
        return power(inside, divided(Fraction(1), degree))
    count = int(degree)
    if count % 2 and is_real(inside) and inside < 0:
        return -mp_context().root(-inexact(inside), count)
    return mp_context().root(inexact(inside), count)


def _factorial(number: Any) -> Any:
    if not is_real(number) or abs(number) > 10**9:
        raise Unreadable("too large a factorial")
    if isinstance(number, Fraction) and number.denominator == 1:
        if number < 0:
            raise Undefined
        if number <= 1000:
            return Fraction(_whole_factorial(int(number)))
    return mp_context().gamma(inexact(number) + 1)


def _whole_factorial(number: int) -> int:
    product = 1
    for factor in range(2, number + 1):
        product *= factor
    return product


def _binomial(above: Any, below: Any) -> Any:
    if not (is_real(above) and is_real(below)) or max(abs(above), abs(below)) > 10**9:
        raise Unreadable("too large a binomial")
    whole = all(isinstance(value, Fraction) and value.denominator == 1 for value in (above, below))
    if whole and 0 <= below <= above <= 1000:
        return Fraction(
            _whole_factorial(int(above)) // (_whole_factorial(int(below)) * _whole_factorial(int(above - below)))
        )
    return mp_context().binomial(inexact(above), inexact(below))


def _logarithm(argument: Any, base: Any = None) -> Any:
    r"""`\log` without a base has an unknown base: it is taken as neither ten nor e."""
    if argument == 0 or (base is not None and (base == 0 or base == 1)):
        raise Undefined
    below = mp_context().mpf("2.9380541") if base is None else mp_context().log(inexact(base))
    return mp_context().log(inexact(argument)) / below


def _mpmath(name: str, limit: int = 10**30) -> Callable[[Any], Any]:
    def call(argument: Any) -> Any:
        if abs(argument) > limit:
            raise Unreadable("too large an argument")
        return getattr(mp_context(), name)(inexact(argument))

    return call


def _rounded(name: str) -> Callable[[Any], Any]:
    def call(argument: Any) -> Any:
        if not is_real(argument) or abs(argument) > 10**30:
            raise Unreadable("not to be rounded")
        return Fraction(int(getattr(mp_context(), name)(inexact(argument))))

    return call


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _mpmath(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: _mpmath(name, 10**12) for name in ("sinh", "cosh", "tanh", "exp")},
    **{
        name: _mpmath(name.replace("arc", "a"))
        for name in ("arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh")
    },
    "abs": abs,
    "root": _root,
    "log": _logarithm,
    "ln": lambda argument: _logarithm(argument, mp_context().e),
    "lg": lambda argument: _logarithm(argument, Fraction(10)),
    "factorial": _factorial,
    "binomial": _binomial,
    "floor": _rounded("floor"),
    "ceiling": _rounded("ceil"),
}


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
