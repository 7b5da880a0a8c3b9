"""Plain scalars by YAML 1.2's core schema.

PyYAML reads YAML 1.1, in which `1e-6` is text, `no` a boolean, `017` fifteen and `1:30` ninety.
"""

from __future__ import annotations

import re
from typing import Any

from yaml.resolver import BaseResolver

NULL, BOOL, INT, FLOAT, TEXT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))

SCALARS = {
    NULL: (re.compile(r"(?:~|null|Null|NULL|)\Z"), ("~", "n", "N", "")),
    BOOL: (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), tuple("tTfF")),
    INT: (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), tuple("-+0123456789")),
    FLOAT: (
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        tuple("-+.0123456789"),
    ),
}
"""Tag → its plain spellings and the characters they start with; first match counts, anything else is text."""

LONGEST_NUMBER = 100


class CoreResolver(BaseResolver):
    """Resolves plain scalars to the tags above."""


for _tag, (_spelling, _first) in SCALARS.items():
    CoreResolver.add_implicit_resolver(_tag, _spelling, _first)


def resolve(text: str) -> str:
    """The tag of a plain scalar."""
    return next((tag for tag, (spelling, _) in SCALARS.items() if spelling.match(text)), TEXT)


def construct(tag: str, text: str) -> Any:
    """The value of a scalar.

    Raises:
        ValueError: it is no value of that tag, or a number no setting can take; the message completes `the value …`.
    """
    if tag == TEXT:
        return text
    if not SCALARS[tag][0].match(text):
        raise ValueError("is not of the type its tag names; remove the tag")
    if tag == NULL:
        return None
    if tag == BOOL:
        return text.lower() == "true"
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"is a number of {len(text)} digits; no setting takes one that long")
    return _integer(text) if tag == INT else _finite(text)


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _finite(text: str) -> float:
    if text.lower().lstrip("+-") in (".inf", ".nan"):
        raise ValueError(f"must be an ordinary number, not {text}")
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"must be an ordinary number; {text} is too large for a computer's")
    return number
