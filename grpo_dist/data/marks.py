"""What chat templates write around a text: role marks, turn ends, prefilled tags."""

from __future__ import annotations

import re

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
