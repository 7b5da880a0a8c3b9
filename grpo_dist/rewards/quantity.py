r"""Numbers as people write them, read exactly, with their units.

A quantity is a number with at most one unit: `1,234`, `-.5`, `+2`, `3/4`, `\frac{3}{4}`, `1\frac{3}{4}`, `1.5e3`, `1.5
\times 10^{3}`, `10^3`, `0.1\overline{6}`, `50%`, `$5`, `5 €`, `34 cm`, `45°`, `60 km/h`, `5 apples`, `1.5 million`.
Misplaced thousands separators make it no number (`1,23`); neither is unevaluated arithmetic (`17*2`, `\sqrt{4}`).
Units are those of measurement, and counted nouns: `cm^2`, `km/h`, `dollars per hour`, `apples`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from grpo_dist.rewards.answers.types import Quantity
from grpo_dist.rewards.latex import without_text

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


__all__ = ["Quantity", "parse_quantity", "split_units"]

MAX_CHARS = 600  # below every setting of Python's limit on digits (sys.set_int_max_str_digits)

_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})++|[0-9]++)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*+)?|\.[0-9]++)"
_SIGNED = rf"[+-]? ?{_DECIMAL}"
_TIMES = r" ?(?:\\times|\\cdot|[×·*x]) ?"
_TEN_TO = r"10 ?(?:\^|\*\*) ?(?:\{ ?([+-]?[0-9]{1,3}) ?\}|([+-]?[0-9]{1,3}))"
_PLAIN = re.compile(rf"({_DECIMAL})(?:[eE]([+-]?[0-9]{{1,3}}))?")
_SCIENTIFIC = re.compile(rf"(?:({_DECIMAL}){_TIMES})?{_TEN_TO}")
_REPEATING = re.compile(rf"({_INTEGER})?\.([0-9]*)\\(?:overline|bar|dot) ?(?:\{{ ?([0-9]+) ?\}}|([0-9]))")
_GOES_ON = re.compile(rf"({_INTEGER})?\.([0-9]{{0,20}}?)([0-9]{{1,12}}?)\3{{2,9}}(?:\\ldots|\.\.\.|…)")
_ABOVE, _BELOW = rf"(?:\{{ ?({_DECIMAL}) ?\}}|([0-9]))", rf"(?:\{{ ?({_DECIMAL}) ?\}}|([0-9]))"
_FRACTIONS = (
    re.compile(rf"()\\frac ?\{{ ?({_SIGNED}) ?\}} ?\{{ ?({_SIGNED}) ?\}}"),
    re.compile(rf"({_INTEGER})? ?\\frac ?{_ABOVE} ?{_BELOW}"),
    re.compile(rf"(?:({_INTEGER})(?: ))?({_DECIMAL}) ?/ ?({_DECIMAL})"),
    re.compile(rf"()\( ?({_SIGNED}) ?\) ?/ ?({_DECIMAL})"),
)
_SMALL_TEXT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_SMALL = _SMALL_TEXT.split()
_SPOKEN = {
    **{word: number for number, word in enumerate(_SMALL)},
    **{
        word: 10 * number
        for number, word in enumerate(["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 3)
    },
}
_MINUS = re.compile(r"(?:negative|minus) ", re.IGNORECASE)
_PERCENT = re.compile(r"(.*?) ?(?:%|(?<![A-Za-z])(?:percent|per cent)|\\text\{ ?(?:percent|per cent|%) ?\})", re.DOTALL)
_MULTIPLIED = re.compile(rf"(.*?)(?: |(?<=[0-9}}]) ?\\text\{{ ?)({'|'.join(MULTIPLIERS)})(?: ?\}}| |$)(.*)", re.DOTALL)
_CODES = "USD|EUR|GBP|INR|Rs"
_CODE = rf"\\text\{{ ?({_CODES})\.? ?\}}|({_CODES})\.?(?= ?[0-9])"
_CURRENCY = re.compile(rf"([+-]?) ?(?:(?:US ?|\\text\{{US\}})?([$€£₹¥])|{_CODE}) ?(.*)", re.DOTALL)
_STARTS = re.compile(r" ?\\text\{| (?=[A-Za-z])|(?<=[0-9])(?=[A-Za-z]{2})| ?°| ?[$€£¢]| ?/ ?(?=[A-Za-z\\])")
_FUNCTION = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_MAX_STARTS = 16


def parse_quantity(text: str) -> Quantity | None:
    r"""The whole text (in the form of `latex.clean` or `latex.plain`) as a quantity; None for anything else."""
    if not text or len(text) > MAX_CHARS:
        return None
    if found := _PERCENT.fullmatch(text):
        value = _signed(found[1])
        return None if value is None else Quantity(value, percent=True, decimals=_decimals(found[1]))
    if found := _MULTIPLIED.fullmatch(text):
        return _multiplied(found[1], MULTIPLIERS[found[2]], found[3])
    for body, unit in split_units(text):
        value = _signed(body)
        if value is not None:
            return Quantity(value, unit, decimals=_decimals(body), divided=_is_division(body))
    return None


def split_units(text: str) -> Iterator[tuple[str, str]]:
    """Every way to read the text as (something with a value, unit): the longest unit first, no unit last."""
    sign_and_money = _CURRENCY.fullmatch(text)
    if sign_and_money:
        sign, symbol, marked, code, rest = sign_and_money.groups()
        symbol = symbol or (marked or code).lower()
        yield from (
            (sign + body, _product(UNITS[symbol], unit))
            for body, unit in _units_after(rest)
            if not unit or unit.startswith(("hour^-1", "day^-1")) or "^-1" in unit
        )
    else:
        yield from _units_after(text)


def _units_after(text: str) -> Iterator[tuple[str, str]]:
    for start in list(_STARTS.finditer(text))[-_MAX_STARTS:]:
        body, behind = text[: start.start()].rstrip(), text[start.start() :]
        if body and _may_follow(body, behind):
            unit = parse_unit(without_text(behind), spoken="\\text" in behind)
            if unit is not None:
                yield body, unit
    yield text, ""


def _may_follow(body: str, behind: str) -> bool:
    """Whether letters at this position can be a unit rather than a factor: `2x m` has none, `5cm` and `5 m` have."""
    if body[-1] in "+-*/^_=<>,([{&|:" or body.endswith("\\"):
        return False
    if behind.strip()[0] == "°" and _FUNCTION.search(body):
        return False  # the sine of 60 degrees
    if "\\text" in behind[:7] or behind.strip()[0] in "°$€£¢":
        return True
    if behind.lstrip().startswith("/"):
        return _signed(body) is not None
    if not behind.startswith(" "):
        return re.match(r"[A-Za-z]+", behind)[0] in UNITS
    first = re.match(r"[A-Za-z]+", behind.lstrip())
    if first and len(first[0]) == 1:
        return _signed(body) is not None
    return body[-1] in "0123456789})." or body.endswith("\\pi") or _spoken(body) is not None


def _product(money: str, unit: str) -> str:
    return f"{money} {unit}" if unit else money


def _multiplied(body: str, factor: int, behind: str) -> Quantity | None:
    """`1.5 million dollars`, `$2 thousand`."""
    for inner, money in split_units(body):
        value = _signed(inner)
        unit = parse_unit(without_text(behind), spoken=True) if behind.strip(" }") else ""
        if value is not None and unit is not None and not (unit and money):
            return Quantity(value * factor, unit or money)
    return None


def _decimals(body: str) -> int:
    return len(body.partition(".")[2]) if re.fullmatch(r"[+-]?[0-9,]*\.[0-9]+", body) else 0


def _signed(text: str) -> Fraction | None:
    """The value of a number with or without a sign."""
    text = _MINUS.sub("-", text.strip())
    if text[:1] in ("+", "-"):
        value = _value(text[1:].strip())
        return -value if value is not None and text[0] == "-" else value
    return _value(text)


def _value(number: str) -> Fraction | None:
    if match := _PLAIN.fullmatch(number) or _SCIENTIFIC.fullmatch(number):
        mantissa, *exponents = match.groups()
        return _fraction(mantissa or "1") * Fraction(10) ** int(next(filter(None, exponents), 0))
    if match := _REPEATING.fullmatch(number) or _GOES_ON.fullmatch(number):
        whole, before, *repeated = match.groups()
        return _repeating(whole or "0", before, next(filter(None, repeated)))
    if (spoken := _spoken(number)) is not None:
        return spoken
    match = next(filter(None, (pattern.fullmatch(number) for pattern in _FRACTIONS)), None)
    if match is None:
        return None
    whole, *parts = match.groups()
    above, below = (_fraction(part) for part in parts if part)
    return _fraction(whole or "0") + above / below if below else None


def _spoken(number: str) -> Fraction | None:
    """`twelve`, `twenty-five`; only small numbers may be words."""
    words = number.lower().replace("-", " ").split(" ")
    if len(words) > 2 or not all(word in _SPOKEN for word in words):
        return None
    values = [_SPOKEN[word] for word in words]
    if len(values) == 2 and not (values[0] >= 20 and 0 < values[1] < 10):
        return None
    return Fraction(sum(values))


def _repeating(whole: str, before: str, repeated: str) -> Fraction:
    """`0.1\\overline{6}` and `0.1666...` are 0.1 + 6/90."""
    nines = (10 ** len(repeated) - 1) * 10 ** len(before)
    return _fraction(f"{whole}.{before}") + Fraction(int(repeated), nines)


def _fraction(decimal: str) -> Fraction:
    """Exact value of a signed decimal; `.5` and `5.` are decimals."""
    return Fraction(decimal.replace(",", "").replace(" ", "").removesuffix("."))


def _is_division(body: str) -> bool:
    """Whether the fraction is a division left to do: `6/3`, `1.5/2`, but neither `6/4` nor `1 1/2`."""
    found = next(filter(None, (pattern.fullmatch(body.lstrip("+- ")) for pattern in _FRACTIONS)), None)
    if found is None or found[1]:
        return False
    above, below = (part for part in found.groups()[1:] if part)
    return "." in above + below or (_fraction(below) != 1 and not _fraction(above) % _fraction(below))
