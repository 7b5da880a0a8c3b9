"""Answers made of answers: lists, points, intervals, sets and matrices."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from grpo_dist.rewards.answers.expression import parse_expression
from grpo_dist.rewards.answers.tokens import Token, split, tokenise
from grpo_dist.rewards.answers.types import (
    Answer,
    Expression,
    Gathering,
    Listing,
    Matrix,
    Named,
    Quantity,
    Relation,
    Sequence,
    Unreadable,
    Words,
    solutions,
)
from grpo_dist.rewards.latex import without_text
from grpo_dist.rewards.quantity import parse_quantity

Inner = Callable[[str], Answer]
MAX_MEMBERS = 200
_BRACKETS = (
    ("(", ")"), ("[", "]"), ("(", "]"), ("[", ")"), (r"\langle", r"\rangle"), ("]", "["), ("]", "]"), ("[", "["),
)  # fmt: skip
_DOTS = (r"\ldots", "...", "…")
_MATRICES = frozenset(("pmatrix", "bmatrix", "Bmatrix", "matrix", "smallmatrix", "array", "vmatrix"))
_VARIABLE = re.compile(r"([a-z])(?: ?\\in ?\\mathbb\{R\})?")
_ROW_HEIGHT = re.compile(r"^\s*\[-?[0-9.]+(?:pt|em|ex|mm|cm)\]")


def _joining(token: Token) -> str | None:
    """`,`, `and`, `or` for tokens that join the members of a list."""
    if token.text in (",", ";"):
        return ","
    word = without_text(token.text).strip(" ,").lower()
    return word if token.kind in ("text", "word") and word in ("and", "or") else None


def listed(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    """`1, 2 and 3`: answers between commas or the words that join."""
    parts, separators = split(text, tokens, lambda token: _joining(token) is not None)
    if not separators:
        return None
    parts = [part for place, part in enumerate(parts) if part or place == 0 or "," not in separators[place - 1]]
    words = {without_text(separator).strip(" ,").lower() for separator in separators} & {"and", "or"}
    if not all(parts) or len(parts) > MAX_MEMBERS:
        raise Unreadable(text)
    dots = [part for part in parts if part in _DOTS]
    members = tuple(_dots(part) if part in _DOTS else inner(part) for part in parts)
    if len(members) == 1:
        return members[0]
    members = _named_alike(tuple(one for member in members for one in _flat(member)))
    return Listing(members, bool(dots), words.pop() if len(words) == 1 else ",")


def _flat(member: Answer) -> tuple[Answer, ...]:
    r"""`0, \pm 1` are three."""
    return member.members if isinstance(member, Listing) else (member,)


def _dots(part: str) -> Answer:
    return Words(r"\ldots")


def _named_alike(members: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """`x = 1, 2` names both."""
    first = members[0]
    if isinstance(first, Named) and all(isinstance(member, (Quantity, Expression)) for member in members[1:]):
        return (first, *(Named(first.name, member) for member in members[1:]))
    return members


def gathered(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    """A union, or a set in braces."""
    parts, separators = split(text, tokens, lambda token: token.text == r"\cup")
    if separators:
        if not all(parts):
            raise Unreadable(text)
        members = tuple(map(inner, parts))
        if all(isinstance(one, Gathering) and one.kind == "set" for one in members):
            return Gathering("set", tuple(element for one in members for element in one.members))
        return Gathering("union", members)
    inside = _inside(text, tokens, r"\{", r"\}")
    if inside is None:
        return None
    if any(token.text in ("|", ":") for token in tokens):
        return _described(inside, inner)
    members = _members(inside, inner)
    if any(member == _dots("") for member in members):
        return Listing(members, True)
    return Gathering("set", tuple(one for member in members for one in _flat(member)))


def _described(inside: str, inner: Inner) -> Answer:
    r"""`x \mid x > 2`: the interval; other conditions are the same text or not the same. Raises: Unreadable."""
    parts, _ = split(inside, tokenise(inside), lambda token: token.text in ("|", ":"))
    variable = _VARIABLE.fullmatch(parts[0]) if len(parts) == 2 else None
    condition = inner(parts[1]) if variable else None
    described = solutions(condition) if condition is not None and _is_about(variable[1], condition) else None
    if described is None:
        raise Unreadable(inside)
    return described


def _is_about(variable: str, condition: Answer) -> bool:
    conditions = condition.members if isinstance(condition, Listing) else (condition,)
    name = Expression(("symbol", variable))
    return all(isinstance(one, Relation) and name in one.sides for one in conditions)


def bracketed(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    """A point, vector or interval; brackets around one answer mean nothing."""
    for opening, closing in _BRACKETS:
        inside = _inside(text, tokens, opening, closing)
        if inside is None:
            continue
        members = _members(inside, inner)
        if "]" in opening or "[" in closing:  # ]0, 1] is the French way to write (0, 1]
            opening, closing = opening.replace("]", "("), closing.replace("[", ")")
        if len(members) > 1 or opening == r"\langle":
            return Sequence(opening, closing, members)
        return members[0] if (opening, closing) == ("(", ")") else Sequence(opening, closing, members)
    return None


def _inside(text: str, tokens: list[Token], opening: str, closing: str) -> str | None:
    """What one pair of brackets around everything encloses."""
    first, last = tokens[0], tokens[-1]
    if first.text != opening or last.text != closing or len(tokens) < 3:
        return None
    if any(token.depth == 0 for token in tokens[1:-1]):
        return None
    return text[first.end : last.start]


def _members(inside: str, inner: Inner) -> tuple[Answer, ...]:
    parts, _ = split(inside, tokenise(inside), lambda token: token.text in (",", ";"))
    if not all(parts) or len(parts) > MAX_MEMBERS:
        raise Unreadable(inside)
    return tuple(_dots(part) if part in _DOTS else inner(part) for part in parts)


def matrix(text: str, tokens: list[Token], inner: Inner) -> Answer | None:
    r"""`\begin{pmatrix} … \end{pmatrix}`, perhaps with a factor in front."""
    inside = _inside(text, tokens, "(", ")") or _inside(text, tokens, "[", "]")
    if inside is not None and inside.strip().startswith("\\begin") and tokenise(inside.strip())[-1].kind == "end":
        return matrix(inside.strip(), tokenise(inside.strip()), inner)
    begin = next((place for place, token in enumerate(tokens) if token.kind == "begin"), None)
    if begin is None or tokens[-1].kind != "end" or any(token.depth == 0 for token in tokens[begin + 1 : -1]):
        return None
    kind = tokens[begin].text.partition("{")[2].rstrip("}")
    if kind not in _MATRICES:
        raise Unreadable(text)
    body = text[tokens[begin].end : tokens[-1].start]
    if kind == "array":
        body = re.sub(r"^\s*\{[lcr| ]*\}|\\hline", "", body)
    rows = _rows(body, inner)
    factor = text[: tokens[begin].start].strip().removesuffix("*").strip()
    if factor:
        rows = tuple(tuple(_times(factor, cell) for cell in row) for row in rows)
    return Matrix(rows, kind == "vmatrix")


def _rows(body: str, inner: Inner) -> tuple[tuple[Answer, ...], ...]:
    lines, _ = split(body, tokenise(body), lambda token: token.kind == "row")
    lines = [_ROW_HEIGHT.sub("", line).strip() for line in lines]
    if lines[-1] == "":
        lines.pop()
    rows = []
    for line in lines:
        cells, _ = split(line, tokenise(line), lambda token: token.text == "&")
        rows.append(tuple(inner(cell) for cell in cells))
    if not rows or len({len(row) for row in rows}) != 1 or sum(map(len, rows)) > MAX_MEMBERS:
        raise Unreadable(body)
    return tuple(rows)


def _times(factor: str, cell: Answer) -> Answer:
    number = parse_quantity("-1" if factor == "-" else factor)
    if isinstance(cell, Quantity) and number is not None:
        return replace(cell, value=cell.value * number.value)
    tree = ("number", cell.value) if isinstance(cell, Quantity) else getattr(cell, "tree", None)
    if tree is None:
        raise Unreadable(factor)
    return Expression(("multiply", parse_expression("-1" if factor == "-" else factor), tree))
