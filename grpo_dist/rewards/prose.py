r"""Finds the answer in prose that marks none: around the last number, with everything that belongs to it.

`2\sqrt{3}`, `x = 3 or x = -3`, `(3, 4)`, `3 million`, `60 km` and `1 1/2` are read whole: a part of any of them is
another answer. Only a few hundred characters around the last number are looked at.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import cached_property

from grpo_dist.rewards.quantity import MULTIPLIERS, UNITS

BEFORE, AFTER = 400, 200
"""Characters around the last number that are considered."""
MAX_BRACKET = 24
"""Most tokens between two brackets."""

_LAST_NUMBER = re.compile(r"[0-9]++")
_TOKEN = re.compile(
    r"""(?P<formula> \$\$[^$]{1,300}\$\$ | \$(?!\s)[^$\n]{1,200}(?<!\s)\$(?![0-9])
            | \\\((?:(?!\\\)).){1,300}\\\) | \\\[(?:(?!\\\]).){1,400}\\\] )
      | (?P<line> \s*\n\s* )
      | (?P<word> \$?(?:(?!\\[(\[]|\$)\S)+ | \S )""",
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"(.*?)([.,;:?]*)", re.DOTALL)
_BULLET = re.compile(r"[-*•]|[0-9]{1,2}[.)]")
_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?'*(?:\([^()=]{1,20}\))?")
_SHORT_NAME = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?'*(?:\([^()=]{1,20}\))?|\\[a-z]+")
_NAMED = re.compile(r"([^=<>]+)=([^=<>]+)")
_GROUP_OF_DIGITS = re.compile(r"[0-9]{3}")
_LEADING_GROUP = re.compile(r"[1-9][0-9]{0,2}|[0-9]{3}")
_POWER_OF_UNIT = re.compile(r"[A-Za-z]{1,6}\^\{?[0-9]\}?")
_FRACTION = re.compile(r"[0-9]+/[0-9]+|\\[dt]?frac\b.*", re.DOTALL)
_SIGNS = frozenset(("+", "-", "−", "–", "±", "∓", r"\pm", r"\mp", "minus"))
_BARE_SIGNS = frozenset(("±", r"\pm", "minus"))
"""Signs that are never a dash."""
_BETWEEN_NUMBERS = frozenset(("plus", "times", "over", "mod", "to", "in"))
_ARITHMETIC_TEXT = r"* / × · ÷ ^ & \\ \times \cdot \div"
_ARITHMETIC = _SIGNS | _BETWEEN_NUMBERS | frozenset(_ARITHMETIC_TEXT.split())
_RELATIONS_TEXT = r"< > ≤ ≥ ≠ ≡ ∈ <= >= \le \ge \leq \geq \ne \neq \equiv \in"
_RELATIONS = frozenset(_RELATIONS_TEXT.split())
_AMOUNTS_TEXT = (
    "percent squared cubed factorial half halves third thirds quarter quarters fifth fifths am pm a.m. p.m. degrees ° %"
)
_AMOUNTS = frozenset((*MULTIPLIERS, *_AMOUNTS_TEXT.split()))
_NO_UNITS_TEXT = "in a c h j k n v w s people child children unit"
_UNITS = frozenset(UNITS) - frozenset(_NO_UNITS_TEXT.split())
_PERHAPS = frozenset(("maybe", "perhaps", "possibly", "also", "else"))
_LETTER_UNITS = frozenset("mgshL")
_MONTHS_TEXT = "january february march april may june july august september october november december"
_MONTHS = frozenset(_MONTHS_TEXT.split())
_NEGATIONS_TEXT = "not never cannot except than neither nor without"
_NEGATIONS = frozenset(_NEGATIONS_TEXT.split())
_AFTER_NEGATION_TEXT = "be is equal equals to the a exactly simply"
_AFTER_NEGATION = frozenset(_AFTER_NEGATION_TEXT.split())


@dataclass(frozen=True)
class _Token:
    text: str
    kind: str
    """maths, letter, operator, relation, equals, joint, end, line, bullet or word."""

    @cached_property
    def has_digit(self) -> bool:
        return re.search("[0-9]", self.text) is not None


def around_last_number(text: str) -> str | None:
    """The last number with what belongs to it; None without a number, or if the text denies it."""
    last = next(iter(deque(_LAST_NUMBER.finditer(text), maxlen=1)), None)
    if last is None:
        return None
    start = max(0, last.start() - BEFORE)
    line = text.find("\n", start, last.start()) if start else -1
    sentence = _Sentence(_tokens(text[line + 1 if line >= 0 else start : last.end() + AFTER]))
    return sentence.answer()


def _tokens(window: str) -> list[_Token]:
    tokens: list[_Token] = []
    for found in _TOKEN.finditer(window):
        if found["line"]:
            tokens.append(_Token("\n", "line"))
        elif found["formula"]:
            tokens.append(_Token(_without_delimiters(found[0]), "maths"))
        elif (not tokens or tokens[-1].kind == "line") and _BULLET.fullmatch(found[0]):
            tokens.append(_Token(found[0], "bullet"))
        else:
            tokens.extend(_parts(found[0]))
    return tokens


def _without_delimiters(formula: str) -> str:
    return formula.strip("$").strip() if formula[0] == "$" else formula[2:-2].strip()


def _parts(word: str) -> list[_Token]:
    """A word without its marks of emphasis, and the punctuation after it."""
    bare = word.strip("*_`\"“”'") if len(word) > 1 else word
    body, punctuation = _WORD.fullmatch(bare).groups()
    body = body.strip("*_`\"“”'") if len(body) > 1 else body
    tokens = []
    if named := re.fullmatch(rf"({_SHORT_NAME.pattern})=(.+)", body):
        tokens = [_Token(named[1], "letter"), _Token("=", "equals"), _Token(named[2], _kind(named[2]))]
    elif body:
        tokens = [_Token(body, _kind(body))]
    for sign in punctuation[:1]:
        tokens.append(_Token(sign, "joint" if sign in ",;" else "end"))
    return tokens


def _kind(word: str) -> str:
    lower = word.lower()
    if word in ("=", "≈", r"\approx"):
        return "equals"
    if word in _RELATIONS:
        return "relation"
    if word in _ARITHMETIC:
        return "operator"
    if lower in ("and", "or"):
        return "joint"
    if re.search(r"[0-9π√∞∅]|\\[A-Za-z{}]", word):
        return "maths"
    return "letter" if len(word) == 1 and word.isalpha() and word not in "aAI" else "word"


class _Sentence:
    """The tokens around the last number; positions are indices of tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens

    def kind(self, place: int) -> str:
        """`end` before the first token and behind the last."""
        return self.tokens[place].kind if 0 <= place < len(self.tokens) else "end"

    def text(self, place: int) -> str:
        return self.tokens[place].text if 0 <= place < len(self.tokens) else ""

    def answer(self) -> str | None:
        place = self._number_before(len(self.tokens), anywhere=True)
        while place is not None:
            start, end = self._item(place)
            if (outside := self._before_remark(start, end)) is not None:
                place = outside
                continue
            if not (self._is_denied(start) or self._is_denied_after(end)):
                return self._written(self._listed(start, end), end)
            place = self._number_before(start) if self._is_contrast(start, end) else None
        return None

    def _number_before(self, place: int, *, anywhere: bool = False) -> int | None:
        """The last number before this place, in the same sentence."""
        while place > 0 and (anywhere or self.kind(place - 1) not in ("end", "line")):
            place -= 1
            if self.kind(place) == "maths" and self.tokens[place].has_digit:
                return place
        return None

    def _item(self, place: int) -> tuple[int, int]:
        """First and last token of the value at this place, with its name or relation."""
        start, end = self._opened(place), self._end(place)
        start = self._start(start)
        while self.kind(start - 1) == "relation":
            left = start - 2 if self.kind(start - 2) in ("maths", "letter") else start - 1
            start = self._start(self._opened(left)) if left < start - 1 else left
        if self.kind(start - 1) == "equals" and _SHORT_NAME.fullmatch(self.text(start - 2)):
            start -= 2
        elif self.text(start - 1).lower() in _MONTHS:
            start -= 1
        return start, end

    def _opened(self, place: int) -> int:
        """Where the bracket opens that closes at this place."""
        depth = 0
        for start in range(place, max(-1, place - MAX_BRACKET), -1):
            if self.kind(start) == "line":
                break
            depth += len(re.findall(r"[)\]}]", self.text(start))) - len(re.findall(r"[(\[{]", self.text(start)))
            if depth <= 0:
                return start
        return place

    def _start(self, start: int) -> int:
        """The first token of an expression."""
        while (step := self._step_left(start)) > 0:
            start = self._opened(start - step) if step > 1 else start - step
        return start

    def _step_left(self, start: int) -> int:
        """How many tokens further left the expression goes on."""
        word, before = self.text(start - 1), self.kind(start - 2)
        if self.kind(start - 1) == "operator":
            if before in ("maths", "letter") and not (word == "to" and self._follows(start - 2, "from")):
                return 2
            is_sign = word in _BARE_SIGNS or before in ("equals", "relation", "joint") or word not in _SIGNS
            return int(is_sign and word not in _BETWEEN_NUMBERS)
        if word.lower() == "negative":
            return 1
        return int(self.kind(start - 1) == "maths" and _grow_together(word, self.text(start)))

    def _follows(self, place: int, word: str) -> bool:
        return self.text(place - 1).lower() == word

    def _end(self, end: int) -> int:
        """The last token of an expression."""
        while True:
            after = self.kind(end + 1)
            if after == "operator" and self.kind(end + 2) in ("maths", "letter"):
                end += 2
            elif (after == "maths" and not self.tokens[end + 1].has_digit) or self._belongs(end):
                end += 1
            elif [self.text(end + 1), self.text(end + 2)] == ["and", "a"] and self.text(end + 3) in _AMOUNTS:
                end += 3  # three and a half
            elif self.text(end + 1) == "or" and self.text(end + 2) in ("more", "fewer", "less", "so"):
                end += 2
            else:
                return end

    def _belongs(self, end: int) -> bool:
        """Whether the next word is a unit, a multiplier or the like."""
        word = self.text(end + 1)
        if word in ("x", "y", "z", "n"):
            return True
        if word in _LETTER_UNITS:
            return self.kind(end + 2) in ("end", "line")
        return word.lower() in _AMOUNTS or word in _UNITS or (word.startswith("(mod") and word != "(mod")

    def _before_remark(self, start: int, end: int) -> int | None:
        """The number before `(6 * 7)` or `(as in step 2)`, which explain it; None for `(3, 4)` and other maths."""
        if not self.text(start).startswith("(") or self.text(start).startswith("(mod"):
            return None
        kinds = {self.kind(place) for place in range(start, end + 1)}
        is_tuple = "joint" in kinds and "word" not in kinds
        return None if is_tuple or not self.text(end).endswith(")") else self._number_before(start)

    def _is_denied(self, start: int) -> bool:
        """Whether it is said not to be the answer: `is not 42`, `cannot be 42`, `more than 42`."""
        for place in range(start - 1, max(-1, start - 4), -1):
            word = self.text(place).lower()
            instead = word == "of" and self._follows(place, "instead")
            if instead or word in _NEGATIONS or word.endswith(("n't", "n’t")):
                return True
            if word not in _AFTER_NEGATION:
                return False
        return False

    def _is_denied_after(self, end: int) -> bool:
        """`41 is not.`"""
        after = [self.text(place).lower() for place in (end + 1, end + 2)]
        return after in (["is", "not"], ["is", "wrong"]) or after[0] in ("isn't", "isn’t")

    def _is_contrast(self, start: int, end: int) -> bool:
        """Whether the number before is meant: `42, not 41`, `42 rather than 41`."""
        if self._is_denied_after(end):
            return True
        before = [self.text(place).lower() for place in (start - 2, start - 1)]
        if before in (["rather", "than"], ["instead", "of"]):
            return True
        return before[1] == "not" and before[0] in (",", "but", "and", "")

    def _listed(self, start: int, end: int) -> int:
        """Where the list begins whose last member this is; the member itself if it is in no list."""
        first, joints = start, set()
        while (found := self._member_before(first)) is not None:
            first, joint = found
            joints.add(joint)
        only_commas = joints <= {",", ";", "\n"}
        return first if not only_commas or self.kind(end + 1) in ("end", "line") else start

    def _member_before(self, start: int) -> tuple[int, str] | None:
        """(start of the member before this one, what joins them)."""
        place, joint = start - 1, ""
        if self.kind(place) == "bullet" and self.kind(place - 1) == "line":
            place, joint = place - 2, "\n"
        else:
            place -= self.text(place) in _PERHAPS and self.kind(place - 1) == "joint"
            while self.kind(place) == "joint" or (place < start - 1 and self.text(place) in _PERHAPS):
                joint = joint if joint in ("and", "or") else self.text(place).lower()
                place -= 1
            if self.text(place).lower() in _UNITS and self.text(self._end(start)) in _UNITS and joint in ("and", "or"):
                place -= 1
        if not joint or self.kind(place) != "maths":
            return None
        first, _ = self._item(place)
        whole_line = joint != "\n" or self.kind(first - 1) == "bullet"
        if not whole_line or self.kind(first - 1) in ("equals", "relation") or self._is_equation(first, place):
            return None
        return None if self._is_named(start) and not self._is_named(first) else (first, joint)

    def _is_named(self, start: int) -> bool:
        return self.kind(start + 1) == "equals" or "=" in self.text(start)

    def _is_equation(self, first: int, last: int) -> bool:
        """Whether a formula is more than a value with a name: `2x = 6`."""
        written = "".join(self.text(place) for place in range(first, last + 1))
        named = _NAMED.fullmatch(written)
        return "=" in written and not (named and _NAME.fullmatch(named[1].strip()))

    def _written(self, start: int, end: int) -> str:
        words: list[str] = []
        for token in self.tokens[start : end + 1]:
            if token.kind in ("line", "bullet"):
                words += [","] if token.kind == "line" else []
            else:
                words.append(token.text)
        text = re.sub(r" ([,;])", r"\1", " ".join(words))
        return _balanced(text)


def _grow_together(left: str, right: str) -> bool:
    r"""`1 1/2`, `10 000`, `5 (mod 7)`, `2 \sqrt{3}`."""
    if re.fullmatch("[0-9]+", left) and _FRACTION.fullmatch(right):
        return True
    if _GROUP_OF_DIGITS.fullmatch(right):
        return _LEADING_GROUP.fullmatch(left) is not None
    if _POWER_OF_UNIT.fullmatch(right):
        return re.search("[0-9]", left) is not None
    return right.startswith(("(mod", r"\pmod", r"\sqrt", r"\pi", r"\end")) or left.startswith(r"\begin")


def _balanced(text: str) -> str:
    """Without a bracket at either end that has no partner."""
    opened, closed = (len(re.findall(brackets, text)) for brackets in (r"[(\[{]", r"[)\]}]"))
    if closed > opened and text.endswith((")", "]")):
        return text[:-1]
    return text[1:] if opened > closed and text.startswith(("(", "[")) else text
