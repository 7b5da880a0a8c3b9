"""Answers in plain language: words, choice letters, times, dates, and numbers with the base they are written in."""

from __future__ import annotations

import re

from grpo_dist.rewards.answers.types import Clock, Date, InBase, Words

_ALIASES = {
    **dict.fromkeys(
        ("all real numbers", "all reals", "real numbers", "reals", r"\mathbb{r}"),
        "all real numbers",
    ),
    **dict.fromkeys(
        ("empty set", "null set", "no solution", "no solutions", "no real solution", "no real solutions", r"\emptyset",
         r"\{\}", r"\{ \}", "there is no solution", "there are no solutions"),
        "no solution",
    ),
    **dict.fromkeys(("dne", "does not exist"), "does not exist"),
}  # fmt: skip
_MATHS_TEXT = (
    "sin cos tan cot sec csc log ln exp sqrt pi infinity theta alpha beta gamma delta lambda mu sigma phi omega rho"
)
_MATHS = frozenset(_MATHS_TEXT.split())
_WORDS = re.compile(r"(?=.*[A-Za-z]{2})[A-Za-z][A-Za-z '’,;:!?\"-]*")
_CHOICE = re.compile(
    r"(?:\(([A-Ka-e])\)|(?:[Oo]ption |[Cc]hoice )?([A-K])[.):](?=\s|$)"
    r"|(?:[Oo]ption|[Cc]hoice) \(?([A-K])\)?(?=\s|$))\s*(.*)",
    re.DOTALL,
)
_JUDGED = re.compile(r"(?:is|are|was|isn't|cannot|can't|not)\b")
_GOES_ON = re.compile(r"[+*/^=<>_,|:;!)-]|\\(?:cup|cap|in|le|ge|ne|to|setminus|pm)(?![A-Za-z])|(?:and|or)\b")
_CLOCK = re.compile(r"([0-9]{1,2})(?:[:.]([0-5][0-9]))?(?::([0-5][0-9]))? ?([aApP])\.? ?[mM]\.?")
_LONG_CLOCK = re.compile(r"([0-9]{1,2}):([0-5][0-9]):([0-5][0-9])")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_WEEKDAY = r"(?:([a-z]+day),? )?"
_DAY = r"([0-9]{1,2})(?:st|nd|rd|th)?"
_DATES = (
    (re.compile(rf"{_WEEKDAY}{_MONTH} {_DAY}(?:,? ([0-9]{{4}}))?"), "wmdy"),
    (re.compile(rf"{_WEEKDAY}(?:the )?{_DAY}(?: of)? {_MONTH}(?:,? ([0-9]{{4}}))?"), "wdmy"),
    (re.compile(rf"{_WEEKDAY}([0-9]{{4}})-([0-9]{{2}})-([0-9]{{2}})"), "wymd"),
)
_ORDINAL = re.compile(r"[0-9]+(?:st|nd|rd|th)")
_SLASHED = re.compile(r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}")
_BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}
_BASE = rf"([0-9]{{1,2}}|{'|'.join(_BASES)})"
_IN_BASE = re.compile(rf"\(?([0-9A-F]+)\)?(?: ?_ ?\{{? ?\(?{_BASE}\)? ?\}}?|,? \(?(?:in )?base[ -]?{_BASE}\)?)")
_SHORT = 3


def plain_words(text: str) -> Words | None:
    """Text without any mathematics, and set phrases with the same meaning."""
    key = re.sub(r"\s+", " ", text.lower())
    if key in _ALIASES:
        return Words(_ALIASES[key])
    if not _WORDS.fullmatch(text) or (" " not in text and "-" not in text and text.isalpha()):
        return None  # a single word may be a product of letters
    words = re.sub(r"[^A-Za-z']+", " ", text).split()
    if any(word in _MATHS or (len(word) == 1 and word not in "aAI") for word in words):
        return None
    if re.search(r"[,;]|\b(?:and|or)\b", text) or not any(len(word) > 1 for word in words):
        return None
    spoken = [word for word in words if word.lower() not in ("a", "an", "the")] or words
    return Words(" ".join(spoken))


def same_words(left: str, right: str) -> bool:
    """Case does not matter in words; it does in names of few letters, such as AB."""
    if left == right:
        return True
    left, right = (_ALIASES.get(text.lower(), text) for text in (left, right))
    if left.lower() != right.lower():
        return False
    name = len(left) <= _SHORT and left.lower() not in _SMALL_WORDS
    return left == right or not name


_SMALL_WORDS_TEXT = (
    "no yes odd one two six ten dne and or sun mon tue wed thu fri sat jan feb mar apr may jun jul aug sep "
    "oct nov dec red on in up all any cat dog hot dry wet bus car man boy pen box day cow pig hen sky sea her "
    "his him she he it we"
)
_SMALL_WORDS = frozenset(_SMALL_WORDS_TEXT.split())


def is_product(letters: str) -> bool:
    """Whether letters alone, two or more of them, are factors: `xy`, but not `no`, `cab` or `AB`."""
    if letters.lower() == "infinity" or letters in _MATHS or re.fullmatch(r"(?:sin|cos|tan|ln|log|pi)[a-z]", letters):
        return True
    factors = re.fullmatch(r"[b-df-hj-np-tv-z]{2}|[abc]{2}|a[xyz]|[xyz]a|[epr]i|i[xyz]", letters)
    return factors is not None and letters not in ("my", "by")


def choice(cleaned: str, text: str) -> tuple[str, str] | None:
    """The letter of a multiple-choice answer and the text beside it; None for anything else."""
    found = _CHOICE.fullmatch(text)
    if found is None:
        return None
    beside = found[4].strip()
    marked = cleaned.startswith("\\text{")
    if _JUDGED.match(beside):
        return None  # option (A) is not correct
    if (_GOES_ON.match(beside) and not (marked and beside[0] == "-")) or (beside and found[1] and found[1].islower()):
        return None
    if beside and found[1] and not marked and not re.match(r"\([A-K]\)\s+(?!\()", text):
        return None  # (A)(B) and (A)x are products
    return next(filter(None, found.groups()[:3])), beside


def clock_or_date(text: str) -> Clock | Date | Words | None:
    if found := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in found.groups()[:3])
        return Clock(hour, minute, second, f"{found[4].lower()}m")
    if found := _LONG_CLOCK.fullmatch(text):
        return Clock(*map(int, found.groups()))
    for pattern, order in _DATES:
        if found := pattern.fullmatch(text.lower()):
            parts = dict(zip(order, found.groups(), strict=True))
            month = _MONTHS.index(parts["m"]) + 1 if parts["m"].isalpha() else int(parts["m"])
            return Date(int(parts["y"]) if parts["y"] else None, month, int(parts["d"]), parts["w"] or "")
    return Words(text) if _SLASHED.fullmatch(text) or _ORDINAL.fullmatch(text) else None


def in_base(text: str) -> InBase | None:
    """`1011_2`, `(1011)_{two}`, `1011 base 2`."""
    found = _IN_BASE.fullmatch(text)
    if found is None:
        return None
    base = found[2] or found[3]
    number = _BASES.get(base) or int(base)
    if not 2 <= number <= 36 or (number <= 10 and not found[1].isdigit()):
        return None
    return InBase(found[1].lstrip("0") or "0", number)
