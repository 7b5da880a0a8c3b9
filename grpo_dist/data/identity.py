"""Decides when two prompts are the same problem, also when a chat template has written role marks around a text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from grpo_dist.data.messages import Messages

if TYPE_CHECKING:
    from datasets import Dataset


_ROLE = r"(?:system|developer|user|assistant|model|tool)"
_HEADERS = (
    rf"<\|im_start\|>\s*{_ROLE}?",  # ChatML: Qwen, SmolLM, …
    rf"<\|(?:start_header_id|header_start)\|>\s*{_ROLE}?\s*<\|(?:end_header_id|header_end)\|>",  # Llama 3 and 4
    rf"<start_of_turn>\s*{_ROLE}?",  # Gemma
    rf"<\|turn>\s*{_ROLE}?",  # Gemma 4
)
_OTHERS = (
    r"<turn\|>",
    r"<end_of_turn>",
    r"\[/?INST\]",  # Mistral, Llama 2
    r"<</?SYS>>",
    r"<\|[A-Za-z_]+\|>",  # the usual spelling of a special token: <|eot_id|>, <|user|>, <|endoftext|>
    "<\uff5c[^\uff5c<>]{1,40}\uff5c>",  # DeepSeek's spelling
    r"\[gMASK\]",
)
MARK = re.compile("|".join((*_HEADERS, *_OTHERS)))
"""A mark that does not occur in ordinary text."""
PICTURE = re.compile(r"<image>|<\|(?:image|video|vision|audio)\w*\|>|<(?:start_of_image|image_soft_token)>")
"""Placeholder of an image, a video or a sound."""

_SYSTEM_TURN = re.compile(
    r"<\|im_start\|>\s*system\b.*?<\|im_end\|>"
    r"|<\|(?:start_header_id|header_start)\|>\s*system\s*<\|(?:end_header_id|header_end)\|>.*?<\|eot(?:_id)?\|>"
    r"|<<SYS>>.*?<</SYS>>"
    r"|<\|turn>\s*system\b.*?<turn\|>"
    r"|<\|system\|>.*?(?=<\|(?:end|user)\|>|</s>)",
    re.DOTALL,
)
_WEAK = re.compile(r"</?s>|<[be]os>")
"""Tags that begin and end a text; in HTML they have another meaning."""
_PREFILLED = re.compile(r"(?:<[A-Za-z_][\w-]*>\s*(?:</[A-Za-z_][\w-]*>\s*)?)+$")
_LABEL_BEFORE = re.compile(r"^\s*(?:user|human|question|problem)\s*:", re.IGNORECASE)
_LABEL_BEHIND = re.compile(r"\b(?:assistant|answer|solution|response)\s*:\s*$", re.IGNORECASE)


def untemplated(text: str) -> str:
    """The user's text in a prompt to which a template was already applied; any other text unchanged."""
    if MARK.search(text):
        text = _WEAK.sub(" ", MARK.sub(" ", _SYSTEM_TURN.sub(" ", text)))
    text = _PREFILLED.sub("", text.strip())
    return _LABEL_BEHIND.sub("", _LABEL_BEFORE.sub("", text))


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
