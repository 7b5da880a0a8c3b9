r"""Units of measurement, and nouns that are counted: `cm^2`, `km/h`, `dollars per hour`, `apples`."""

from __future__ import annotations

import re

_SPELLINGS = (
    "dollar dollars $ usd",
    "euro euros € eur",
    "pound pounds £ gbp",
    "rupee rupees ₹",
    "yen ¥",
    "cent cents ¢",
    "degree degrees ° deg",
    "radian radians rad rads",
    "mm millimeter millimeters millimetre millimetres",
    "cm centimeter centimeters centimetre centimetres",
    "m meter meters metre metres",
    "km kilometer kilometers kilometre kilometres",
    "inch inches in",
    "foot feet ft",
    "yard yards yd yds",
    "mile miles mi",
    "mg milligram milligrams",
    "g gram grams",
    "kg kilogram kilograms kgs",
    "ton tons tonne tonnes",
    "ounce ounces oz",
    "lb lbs",
    "ml milliliter milliliters millilitre millilitres",
    "liter liters litre litres l",
    "gallon gallons gal",
    "second seconds sec secs s",
    "ms millisecond milliseconds",
    "minute minutes min mins",
    "hour hours hr hrs h",
    "day days",
    "week weeks wk",
    "month months",
    "year years yr yrs",
    "unit units",
    "joule joules j",
    "kj kilojoule kilojoules",
    "newton newtons n",
    "watt watts w",
    "kw kilowatt kilowatts",
    "kwh",
    "volt volts v",
    "ampere amperes amp amps a",
    "ohm ohms",
    "hertz hz",
    "khz",
    "mhz",
    "pascal pascals pa",
    "kpa",
    "kelvin k",
    "coulomb coulombs c",
    "mole moles mol mols",
    "person people persons",
    "child children",
    "foot feet",
    "celsius °c",
    "ev",
    "kev",
    "mev",
    "nm",
    "cal",
    "kcal",
    "psi",
    "rpm",
    "atm",
    "db",
    "fahrenheit °f",
)
UNITS = {spelling: spellings.split()[0] for spellings in _SPELLINGS for spelling in spellings.split()}
_COMPOUND = {
    "mph": "mile hour^-1",
    "kph": "km hour^-1",
    "kmh": "km hour^-1",
    "kmph": "km hour^-1",
    "fps": "foot second^-1",
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_AFTER = {"squared": 2, "cubed": 3}
_EVEN_CAPITAL = {
    "J",
    "N",
    "W",
    "C",
    "V",
    "A",
    "K",
    "L",
    "Hz",
    "kHz",
    "MHz",
    "Pa",
    "kPa",
    "kJ",
    "kW",
    "kWh",
    "mL",
    "USD",
    "eV",
    "keV",
    "MeV",
    "dB",
    "EUR",
    "GBP",
}

MULTIPLIERS = {
    "dozen": 12, "dozens": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip
_NO_NOUN_TEXT = (
    "or and not more less than at least most about only plus minus over if when where mod modulo choose "
    "factorial half halves third thirds quarter quarters fifth fifths percent to of the is are be by for from "
    "pi sqrt root squared cubed times divided equals equal infinity hundreds thousands millions billions "
    "score pair remainder per with without as approximately roughly exactly otherwise but except in base mod "
    "sin cos tan log ln exp positive negative point pairs gross tenth tenths hundredth hundredths true false "
    "yes no none both either neither solution solutions up down degrees-of a an am pm st nd rd th noon midnight o'clock"
)
_NO_NOUN = frozenset(_NO_NOUN_TEXT.split()) | frozenset(MULTIPLIERS)
_PIECE = re.compile(
    r"\s*(?:(?P<word>[$€£¢₹¥°]|[A-Za-z][A-Za-z'-]*)\.?(?:\s*\^\s*\{?\s*(?P<power>-?[0-9])\s*\}?)?|(?P<sign>[/*]))"
)
_MAX_CHARS = 80


def parse_unit(text: str, *, spoken: bool = False) -> str | None:
    """The canonical name of a unit or of what is counted; None for anything else.

    `spoken`: the text was marked as text, so that capital letters do not matter.
    """
    if len(text) > _MAX_CHARS:
        return None
    text = re.sub(r"\s+per\s+|\s*/\s*per\s+", "/", f" {text.strip()} ").replace("{", "").replace("}", "")
    text = re.sub(r"°\s*([CF])\b", lambda found: {"C": "degree celsius", "F": "degree fahrenheit"}[found[1]], text)
    text = re.sub(r"\bsq\.? ", "square ", text).strip()
    powers: dict[str, int] = {}
    sign, place = 1, 0
    counted: list[str] = []
    pending = 1
    while place < len(text):
        piece = _PIECE.match(text, place)
        if piece is None:
            return None
        place = piece.end()
        if piece["sign"]:
            sign = -1 if piece["sign"] == "/" else sign
            continue
        word = piece["word"]
        if word in ("of", "the") and "of the" in text:
            continue  # of the cake
        if (word.lower() if spoken else word) in _POWERS:
            pending = _POWERS[word.lower()]
            continue
        if word.lower() in _POWERS_AFTER and powers:
            last = next(reversed(powers))
            powers[last] *= _POWERS_AFTER[word.lower()]
            continue
        power = sign * pending * int(piece["power"] or 1)
        pending = 1
        known = _known(word)
        if known is None:
            if (
                word.lower() in _NO_NOUN
                or len(word) < (2 if spoken else 3)
                or not (spoken or word.islower())
                or piece["power"]
            ):
                return None
            counted.append(word.lower())
            known = _singular(word.lower())
        for name, exponent in _parts(known):
            powers[name] = powers.get(name, 0) + exponent * power
    if len(counted) > 4 or not powers or pending != 1:
        return None
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in _ordered(powers, counted))


def _ordered(powers: dict[str, int], counted: list[str]) -> list[tuple[str, int]]:
    """Units may be multiplied in any order; words that are counted stay as they stand."""
    left = [(name, power) for name, power in powers.items() if power]
    return left if counted else sorted(left)


def _known(word: str) -> str | None:
    if len(word) == 1 and word.isalpha() and word not in _EVEN_CAPITAL and word not in "mgshl":
        return None
    if word.lower() in _COMPOUND:
        return _COMPOUND[word.lower()]
    return UNITS.get(word, UNITS.get(word.lower()))


def _parts(name: str) -> list[tuple[str, int]]:
    return [(part.partition("^")[0], int(part.partition("^")[2] or 1)) for part in name.split()]


def _singular(noun: str) -> str:
    for ending, kept in (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x")):
        if noun.endswith(ending):
            return noun.removesuffix(ending) + kept
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") and len(noun) > 3 else noun
