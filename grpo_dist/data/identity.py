"""Decides when two prompts are the same problem."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from grpo_dist.data.marks import untemplated
from grpo_dist.data.messages import Messages

if TYPE_CHECKING:
    from datasets import Dataset

KEY = "grpo_dist_problem"
"""Column of the problems' keys while a data set is prepared: computed before a system prompt is added."""

_KEPT = ("<super>", "<sub>", "<fraction>")
"""Forms that differ in meaning from the plain character: 2² is not 22."""
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_MATH_MARKS = re.compile(r"\$+|\\[()\[\]]")
_AROUND_SIGNS = re.compile(r"\s*([^\w\s])\s*")
_ALIKE = str.maketrans(dict.fromkeys("\u201c\u201d\u201e", '"') | dict.fromkeys("\u2018\u2019\u201a", "'"))
_ALIKE |= str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
"""Curly quotes and all dashes, as they are typed."""


def problem_key(prompt: Messages) -> str:
    """Key of roles and words, independent of system prompt, case, white space, Unicode form, template and prefilled
    tag."""
    spoken = [(message["role"], normalised(message["content"])) for message in prompt if message["role"] != "system"]
    return json.dumps(spoken)


def normalised(text: str) -> str:
    """A text for comparison only."""
    text = _math_as_text(_unicode(untemplated(text))).casefold()
    return " ".join(_AROUND_SIGNS.sub(r"\1", text).split())


def problem_keys(problems: Dataset) -> list[str]:
    """The keys of all rows."""
    if KEY in problems.column_names:
        return problems[KEY][:]
    return [problem_key(prompt) for prompt in problems["prompt"][:]]


class Problems:
    """A set of problems that recognises a problem even at the end of a longer conversation."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self.keys = frozenset(keys)
        self.last = frozenset(map(_last, self.keys))

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: str) -> bool:
        return key in self.keys or _last(key) in self.keys or key in self.last

    def rows_among(self, keys: Sequence[str]) -> list[int]:
        """Indices of the keys that are in the set."""
        return [row for row, key in enumerate(keys) if key in self]


def first_rows(keys: Sequence[str]) -> list[int]:
    """Index of the first row of each different problem."""
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    return list(first.values())


def _last(key: str) -> str:
    return json.dumps(json.loads(key)[-1:])


def _unicode(text: str) -> str:
    if text.isascii():
        return text
    plain = "".join(one if unicodedata.decomposition(one).startswith(_KEPT) else _compatible(one) for one in text)
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", plain).translate(_ALIKE))


def _compatible(character: str) -> str:
    return unicodedata.normalize("NFKC", character)


def _math_as_text(text: str) -> str:
    return _MATH_MARKS.sub("", text)
