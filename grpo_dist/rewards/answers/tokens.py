"""A text in LaTeX or plain notation → its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<text>\\text\{[^{}]*\})
      | (?P<begin>\\begin\s*\{[a-zA-Z]+\*?\}) | (?P<end>\\end\s*\{[a-zA-Z]+\*?\})
      | (?P<row>\\\\) | (?P<command>\\[A-Za-z]+ | \\.)
      | (?P<number>[0-9]+(?:\.[0-9]+)? | \.[0-9]+)
      | (?P<word>[A-Za-z]+) | (?P<space>\s+) | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
OPENING = frozenset(("(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil"))
CLOSING = frozenset((")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil"))


@dataclass(frozen=True)
class Token:
    """A piece of text; `kind` is the name of its group in the pattern."""

    kind: str
    text: str
    start: int
    end: int
    depth: int
    """Number of brackets around it; a bracket has the depth of its surroundings."""


def tokenise(text: str) -> list[Token]:
    """The tokens of the whole text, in order."""
    tokens, depth = [], 0
    for found in _TOKEN.finditer(text):
        opens = found.lastgroup == "begin" or found[0] in OPENING
        depth -= found.lastgroup == "end" or found[0] in CLOSING
        tokens.append(Token(found.lastgroup, found[0], found.start(), found.end(), depth))
        depth += opens
    return tokens


def is_balanced(tokens: Sequence[Token]) -> bool:
    """Whether every bracket has a partner, of whatever shape."""
    depth = 0
    for token in tokens:
        depth += (token.kind == "begin" or token.text in OPENING) - (token.kind == "end" or token.text in CLOSING)
        if depth < 0:
            return False
    return depth == 0


def split(text: str, tokens: Iterable[Token], separates: Callable[[Token], bool]) -> tuple[list[str], list[str]]:
    """The parts between separating tokens outside every bracket, and the separators."""
    parts, separators, start = [], [], 0
    for token in tokens:
        if token.depth == 0 and separates(token):
            parts.append(text[start : token.start].strip())
            separators.append(token.text)
            start = token.end
    return [*parts, text[start:].strip()], separators


def squeezed(text: str) -> str:
    """The text without insignificant white space: it matters between words and between numbers."""
    written: list[Token] = []
    pieces: list[str] = []
    for token in tokenise(text):
        if token.kind == "space":
            continue
        if written and _would_grow_together(written[-1], token) and written[-1].end != token.start:
            pieces.append(" ")
        written.append(token)
        pieces.append(re.sub(r"\s+", " ", token.text))
    return "".join(pieces)


def _would_grow_together(left: Token, right: Token) -> bool:
    kinds = {left.kind, right.kind}
    return kinds in ({"word"}, {"number"}) or (
        left.kind == "command" and left.text[-1].isalpha() and right.kind == "word"
    )
