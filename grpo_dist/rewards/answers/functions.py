"""Powers, roots and functions of numbers, each of bounded cost: anything too large raises `Unreadable`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from grpo_dist.rewards.answers.precision import MAX_BITS, Undefined, divided, inexact, is_real, mp_context
from grpo_dist.rewards.answers.types import Unreadable

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
