"""Values of a data set as text, and small building blocks of messages about data."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from grpo_dist.config.sections import DataSection, SourceSection

EXACT_INTEGERS = 1e16
"""Floats below this print all digits of an integer value."""
PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def is_missing(value: Any) -> bool:
    """None, NaN, or text without a character to see."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def as_text(value: Any) -> str:
    """A scalar as text; an integer-valued float loses its `.0`, because a column of integers with a gap is read as
    floats.

    `34` → `"34"`, `34.0` → `"34"`, `0.5` → `"0.5"`, `"034"` → `"034"`.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_INTEGERS:
        return str(int(value))
    return str(value)


def is_plain_number(text: str) -> bool:
    """Digits with sign, point and exponent, as `pandas.to_numeric` reads them: `-3`, ` 0.5 `, `1e5`; not `1,234`."""
    return PLAIN_NUMBER.fullmatch(text.strip()) is not None


SHOWN = 12
EXCERPT = 80
YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""Words that YAML 1.1 does not read as text."""


def place(source: SourceSection) -> str:
    """Dotted path of a source in the configuration, for messages and `--set` hints."""
    return "data" if isinstance(source, DataSection) else "warm_start.data"


def listing(names: Iterable[str]) -> str:
    """`a, b, c`, cut off after a dozen."""
    names = list(names)
    more = f", … ({len(names):,} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def excerpt(value: object) -> str:
    """The first characters of a value, on one line and quoted."""
    text = " ".join(str(value).split())
    return repr(text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…")


def set_option(path: str, value: str | Mapping[str, str]) -> str:
    """What to type to set one field, quoted for the shell: `--set 'data.columns={prompt: question}'`."""
    if isinstance(value, Mapping):
        value = "{" + ", ".join(f"{_flow(ours)}: {_flow(theirs)}" for ours, theirs in value.items()) + "}"
    else:
        value = _flow(value)
    return f"--set {shlex.quote(f'{path}={value}')}"


def _flow(text: str) -> str:
    """A string as YAML reads it back inside `{…}`: bare when it is a plain word."""
    plain = re.fullmatch(r"[A-Za-z_./](?:[\w./-]|:(?=\w))*", text) and text.lower() not in YAML_WORDS
    return text if plain else "'" + text.replace("'", "''") + "'"
