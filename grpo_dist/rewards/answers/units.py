r"""Units of measurement, and counted nouns: `cm^2`, `km/h`, `dollars per hour`, `apples`."""

from __future__ import annotations

import re

_SPELLINGS = (
    "dollar dollars $ usd",
    "euro euros € eur",
    "pound pounds £ gbp",
    "rupee rupees ₹ inr rs",
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
_NUMBER_TEXT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
_PARTS_TEXT = (
    "sixth seventh eighth ninth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth "
    "nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth thousandth millionth"
)
_NO_NOUN = frozenset(
    (*_NO_NOUN_TEXT.split(), *_NUMBER_TEXT.split(), *_PARTS_TEXT.split(), *f"{_PARTS_TEXT} ".replace(" ", "s ").split())
) | frozenset(MULTIPLIERS)
_PIECE = re.compile(
    r"\s*(?:(?P<word>[$€£¢₹¥°]|[A-Za-z][A-Za-z'-]*)\.?(?:\s*\^\s*\{?\s*(?P<power>-?[0-9])\s*\}?)?|(?P<sign>[/*]))"
)
_MAX_CHARS = 80
_MAX_NOUNS = 4


def parse_unit(text: str, *, spoken: bool = False) -> str | None:
    """The canonical name of a unit or counted noun; None for anything else.

    `spoken`: the text was marked as text, so that capital letters do not matter.
    """
    if len(text) > _MAX_CHARS:
        return None
    text = re.sub(r"\s+per\s+|\s*/\s*per\s+", "/", f" {text.strip()} ").replace("{", "").replace("}", "")
    text = re.sub(r"°\s*([CF])\b", lambda found: {"C": "degree celsius", "F": "degree fahrenheit"}[found[1]], text)
    text = re.sub(r"\bsq\.? ", "square ", text).strip()
    product = _Product(spoken)
    place = 0
    while place < len(text):
        piece = _PIECE.match(text, place)
        if piece is None:
            return None
        place = piece.end()
        if piece["word"] in ("of", "the") and "of the" in text:
            continue  # of the cake
        if not product.takes(piece):
            return None
    return product.name()


class _Product:
    """Units and nouns with their powers, collected while reading."""

    def __init__(self, spoken: bool) -> None:
        self.spoken, self.sign, self.pending = spoken, 1, 1
        self.powers: dict[str, int] = {}
        self.counted = 0

    def takes(self, piece: re.Match[str]) -> bool:
        """Add a word or a sign; False if it belongs to no unit."""
        word = piece["word"]
        if word is None:
            self.sign = -1 if piece["sign"] == "/" else self.sign
        elif (word.lower() if self.spoken else word) in _POWERS:
            self.pending = _POWERS[word.lower()]
        elif word.lower() in _POWERS_AFTER and self.powers:
            self.powers[next(reversed(self.powers))] *= _POWERS_AFTER[word.lower()]
        else:
            known = _known(word) or (None if piece["power"] else self.noun(word))
            if known is None:
                return False
            for name, exponent in _parts(known):
                power = exponent * self.sign * self.pending * int(piece["power"] or 1)
                self.powers[name] = self.powers.get(name, 0) + power
            self.pending = 1
        return True

    def noun(self, word: str) -> str | None:
        """A counted noun in the singular."""
        too_short = len(word) < (2 if self.spoken else 3)
        if word.lower() in _NO_NOUN or too_short or not (self.spoken or word.islower()):
            return None
        self.counted += 1
        return _singular(word.lower())

    def name(self) -> str | None:
        """Units may be multiplied in any order; counted nouns keep their order."""
        if self.counted > _MAX_NOUNS or not self.powers or self.pending != 1:
            return None
        left = [(name, power) for name, power in self.powers.items() if power]
        return " ".join(
            name if power == 1 else f"{name}^{power}" for name, power in (left if self.counted else sorted(left))
        )


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
