"""From text to typed answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from grpo_dist.rewards.answers.containers import bracketed, gathered, listed, matrix
from grpo_dist.rewards.answers.expression import parse_expression
from grpo_dist.rewards.answers.plain_words import choice, clock_or_date, in_base, is_product, plain_words
from grpo_dist.rewards.answers.tokens import Token, is_balanced, split, squeezed, tokenise
from grpo_dist.rewards.answers.types import (
    Answer,
    Choice,
    Expression,
    Listing,
    Named,
    Opaque,
    Quantity,
    Ratio,
    Relation,
    Unreadable,
    Words,
    symbols,
)
from grpo_dist.rewards.latex import clean, without_text
from grpo_dist.rewards.quantity import parse_quantity, split_units

MAX_TOKENS = 2500
MAX_DEPTH = 12
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
_SIGNS = frozenset(
    ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\approx", r"\equiv", r"\in", r"\to", r"\subset", r"\subseteq", r"\sim",
     r"\cong", r"\parallel", r"\perp", r"\Rightarrow", r"\implies", r"\Leftrightarrow", r"\notin", r"\rightarrow")
)  # fmt: skip
_TURNED = {">": "<", r"\ge": r"\le"}
_NAME = re.compile(
    r"\\?[A-Za-z]+(?:_\{?[A-Za-z0-9]+\}?)?'*(?: ?\([^()=]{1,20}\))?|[A-Za-z]+(?: [A-Za-z]+){1,5}"
    r"|\(\\?[A-Za-z]+(?:_\{?[0-9]\}?)?(?:, ?\\?[A-Za-z]+(?:_\{?[0-9]\}?)?)+\)|\\angle [A-Z]{1,3}|\\overline\{[A-Z]+\}"
    r"|[fgh]\^\{-1\}\([a-z]\)|\\(?:vec|hat|bar|overrightarrow) ?\{?[A-Za-z]+\}?|[A-Z]{2}"
)


_FUNCTION = re.compile(r"[A-Za-z]\([a-z](?:,[a-z])*\)")
_MEASURED = re.compile(r"[0-9][0-9.,/]* ?[A-Za-z]+")
_COMPOUND = re.compile(rf"{_MEASURED.pattern}(?: {_MEASURED.pattern}){{1,3}}")


@lru_cache(maxsize=4096)
def readings(text: str) -> tuple[Answer, ...]:
    """The possible meanings of the text; () for blank text. More than one: `30,150` is a number and two numbers.

    Any non-blank text has one: at least `Opaque`.
    """
    cleaned = clean(text)
    if not cleaned:
        return ()
    joined = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), cleaned)
    meant = [_read(joined if _outside_brackets(cleaned) else cleaned, 0)]
    if joined != cleaned and "$" not in cleaned and not re.search(r",0[0-9]", cleaned):
        meant.append(_read(cleaned.replace(",", ", "), 0))
    return tuple(meant)


def _outside_brackets(text: str) -> bool:
    return all(token.depth == 0 for token in tokenise(text) if token.text == ",")


def _read(text: str, depth: int) -> Answer:
    """One meaning of cleaned text."""
    text = text.strip()
    if not text:
        raise Unreadable("an empty part")
    tokens = tokenise(text)
    if len(tokens) <= MAX_TOKENS and depth <= MAX_DEPTH:
        inner = lambda part: _read(part, depth + 1)  # noqa: E731
        for reader in _READERS if is_balanced(tokens) else (_plain_text, _bracketed):
            try:
                answer = reader(text, tokens, inner)
            except (Unreadable, RecursionError):
                continue
            if answer is not None:
                return answer
    return Opaque(squeezed(without_text(text)))


Inner = Callable[[str], Answer]


def _marked_text(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    r"""`\text{34}` is 34."""
    if len(tokens) == 1 and tokens[0].kind == "text":
        content = tokens[0].text[6:-1].strip()
        return inner(clean(content)) if clean(content) else None
    return None


def _plain_text(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    plain = without_text(text)
    if (found := clock_or_date(plain)) is not None:
        return found
    if (letter := choice(text, plain)) is not None:
        return Choice(letter[0], inner(letter[1]) if letter[1] else None)
    return plain_words(plain)


def _quantity(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    return parse_quantity(text)


def _either_sign(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    r"""`2 \pm 1` is 3 and 1; several of them take the same sign together."""
    if tokens[0].text == r"\{" or not any(token.text in (r"\pm", r"\mp") for token in tokens):
        return None
    if any(token.text in (",", ";") and token.depth == 0 for token in tokens):
        return None
    upper, lower = (
        re.sub(r"\\(pm|mp)(?![A-Za-z])", lambda found, signs=signs: signs[found[1]], text)
        for signs in ({"pm": "+", "mp": "-"}, {"pm": "-", "mp": "+"})
    )
    return Listing((inner(upper), inner(lower)))


def _relation(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    sides, signs = split(text, tokens, lambda token: token.text in _SIGNS)
    if not signs:
        return None
    if not all(sides):
        raise Unreadable(text)
    if len(signs) == 1 and signs[0] in ("=", r"\in"):
        named = _named(*sides, signs[0], inner)
        if named is not None:
            return named
    return _ordered(signs, [inner(side) for side in sides])


def _ordered(signs: list[str], sides: list[Answer]) -> Relation:
    """With the smaller side first, if all signs point the same way."""
    if all(sign in _TURNED for sign in signs):
        return Relation(tuple(_TURNED[sign] for sign in reversed(signs)), tuple(reversed(sides)))
    return Relation(tuple(signs), tuple(sides))


def _named(left: str, right: str, sign: str, inner: Inner) -> Named | None:
    if not _NAME.fullmatch(without_text(left)):
        if sign != "=" or not _NAME.fullmatch(without_text(right)) or not re.search(r"[0-9]", left):
            return None
        left, right = right, left
    value = inner(right)
    name = squeezed(without_text(left)).replace("{", "").replace("}", "")
    relation = None
    if sign == "=" and isinstance(value, Expression) and symbols(value.tree) and not _FUNCTION.fullmatch(name):
        relation = Relation(("=",), (inner(left), value))
        if isinstance(relation.sides[0], Expression) and symbols(relation.sides[0].tree) & symbols(value.tree):
            return None
    return Named(name, value, relation)


def _compound(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    """`3 hours 20 minutes`, `5 feet 3 inches`: as if joined by `and`."""
    plain = without_text(text)
    if not _COMPOUND.fullmatch(plain):
        return None
    parts = [parse_quantity(part[0]) for part in _MEASURED.finditer(plain)]
    return Listing(tuple(parts)) if all(part and part.unit for part in parts) else None


def _ratio(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    parts, signs = split(text, tokens, lambda token: token.text == ":" or without_text(token.text).strip() == "to")
    if not signs or not all(parts):
        return None
    answers = tuple(inner(part) for part in parts)
    if not all(isinstance(answer, (Quantity, Expression)) for answer in answers):
        raise Unreadable(text)
    written = [part.strip() for part in parts]
    clock = signs == [":"] and re.fullmatch(r"[0-9]{1,2}:[0-5][0-9]", ":".join(written)) is not None
    return Ratio(answers, clock)


def _in_base(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    """In base ten it is a plain number."""
    found = in_base(without_text(text))
    return Quantity(Fraction(found.digits)) if found is not None and found.base == 10 else found


def _bracketed(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    return bracketed(text, tokens, inner)


def _expression(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    for body, unit in split_units(text):
        try:
            return Expression(parse_expression(body), unit)
        except Unreadable:
            continue
    return None


def _words_in_letters(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    """`cab` is a word, `xy` is a product."""
    plain = without_text(text)
    if re.fullmatch(r"[A-Za-z]{2,}", plain) and not is_product(plain):
        return Words(plain)
    return None


_READERS = (
    _marked_text,
    _quantity,
    _plain_text,
    _words_in_letters,
    _compound,
    listed,
    _relation,
    _either_sign,
    gathered,
    _in_base,
    matrix,
    _bracketed,
    _ratio,
    _expression,
)
