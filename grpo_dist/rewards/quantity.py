r"""Numbers as people write them, exactly.

A quantity is a number with at most one unit: `1,234`, `-.5`, `+2`, `3/4`, `\frac{3}{4}`, `1\frac{3}{4}`,
`1.5e3`, `1.5 \times 10^{3}`, `10^3`, `50%`, `$5`, `5 €`, `34 cm`, `45°`. Thousands separators stand where they
belong or it is no number (`1,23`); arithmetic left to do (`17*2`, `\sqrt{4}`) is no number either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 600  # below every setting of Python's limit on digits (sys.set_int_max_str_digits)

_UNITS = {
    spelling: spellings.split()[0]
    for spellings in (
        "dollar dollars $ usd",
        "euro euros € eur",
        "pound pounds £ gbp",
        "cent cents",
        "degree degrees °",
        "mm millimeter millimeters millimetre millimetres",
        "cm centimeter centimeters centimetre centimetres",
        "m meter meters metre metres",
        "km kilometer kilometers kilometre kilometres",
        "inch inches in",
        "foot feet ft",
        "yard yards yd",
        "mile miles mi",
        "mg milligram milligrams",
        "g gram grams",
        "kg kilogram kilograms",
        "ounce ounces oz",
        "lb lbs",
        "ml milliliter milliliters",
        "liter liters litre litres",
        "second seconds sec s",
        "minute minutes min",
        "hour hours hr h",
        "day days",
        "week weeks",
        "month months",
        "year years",
        "unit units",
    )
    for spelling in spellings.split()
}
_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})++|[0-9]++)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*+)?|\.[0-9]++)"
_SIGNED = rf"[+-]? ?{_DECIMAL}"
_TIMES = r" ?(?:\\times|\\cdot|[×·*]) ?"
_TEN_TO = r"10 ?(?:\^|\*\*) ?(?:\{([+-]?[0-9]{1,3})\}|([+-]?[0-9]{1,3}))"
_PLAIN = re.compile(rf"({_DECIMAL})(?:[eE]([+-]?[0-9]{{1,3}}))?")
_SCIENTIFIC = re.compile(rf"(?:({_DECIMAL}){_TIMES})?{_TEN_TO}")
_FRACTIONS = (
    re.compile(rf"()\\frac ?\{{ ?({_SIGNED}) ?\}} ?\{{ ?({_SIGNED}) ?\}}"),
    re.compile(rf"({_INTEGER}) ?\\frac ?\{{ ?({_DECIMAL}) ?\}} ?\{{ ?({_DECIMAL}) ?\}}"),
    re.compile(rf"(?:({_INTEGER}) )?({_DECIMAL}) ?/ ?({_DECIMAL})"),
)
_AFTER = r"[$€£°]| (?:square |cubic )?[A-Za-z]+(?:\^\{?[23]\}?)?"
_PARTS = re.compile(rf"([+-]?) ?([$€£]?) ?(.*?) ?(%| percent)?({_AFTER})?")


@dataclass(frozen=True)
class Quantity:
    """`value` as written (50 for `50%`), the canonical name of its unit or "", and whether a percent sign followed."""

    value: Fraction
    unit: str = ""
    percent: bool = False


def parse_quantity(text: str) -> Quantity | None:
    """The quantity that the whole text (in the form of `latex.plain`) is; None when it is anything else."""
    parts = _PARTS.fullmatch(text) if len(text) <= MAX_CHARS else None
    if parts is None:
        return None
    sign, before, number, percent, after = parts.groups()
    value, unit = _value(number), _unit(before, after)
    if value is None or unit is None or (unit and percent):
        return None
    return Quantity(-value if sign == "-" else value, unit, percent is not None)


def same_quantity(guess: Quantity, truth: Quantity) -> bool:
    """Whether the guess states the truth.

    A unit may be left out, two different ones never agree. A percent sign means 1/100: `50%` equals
    `0.5`. A bare 50 equals a right answer `50%`, since the question then asks for percent, but a guess
    of `50%` does not equal a right answer 50.
    """
    if guess.unit and truth.unit and guess.unit != truth.unit:
        return False
    if truth.percent and not guess.percent and guess.value == truth.value:
        return True
    return _worth(guess) == _worth(truth)


def _worth(quantity: Quantity) -> Fraction:
    return quantity.value / 100 if quantity.percent else quantity.value


def _unit(before: str, after: str | None) -> str | None:
    """Canonical unit, "" for none; None for two units or a word that is not a unit."""
    if not (before or after):
        return ""
    name, _, power = (before or after).strip().replace("{", "").replace("}", "").partition("^")
    for word, exponent in (("square ", "2"), ("cubic ", "3")):
        if name.startswith(word):
            name, power = name.removeprefix(word), exponent
    known = None if before and after else _UNITS.get(name, _UNITS.get(name.lower()))
    return f"{known}^{power}" if known and power else known


def _value(number: str) -> Fraction | None:
    if match := _PLAIN.fullmatch(number) or _SCIENTIFIC.fullmatch(number):
        mantissa, *exponents = match.groups()
        return _fraction(mantissa or "1") * Fraction(10) ** int(next(filter(None, exponents), 0))
    match = next(filter(None, (pattern.fullmatch(number) for pattern in _FRACTIONS)), None)
    if match is None:
        return None
    whole, above, below = (_fraction(part or "0") for part in match.groups())
    return whole + above / below if below else None


def _fraction(decimal: str) -> Fraction:
    """Exact value of a signed decimal; `.5` and `5.` are decimals."""
    return Fraction(decimal.replace(",", "").replace(" ", "").removesuffix("."))
