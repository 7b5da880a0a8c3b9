"""Secrets in settings: recognised by name and by form, hidden wherever they are shown, passed as `env:NAME`.

A name is never enough to be sure, so nothing is refused: a secret that is stated plainly works, in a file that only its
owner can read, and the plan warns of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from grpo_dist.errors import ConfigError

MASK = "(hidden)"
ENVIRONMENT = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
NAMES = re.compile(
    r"(api_?key|access_?key|private_?key|secret(_?key)?|password|passwd|passphrase|pwd|credentials?|authorization|"
    r"bearer|cookie|token)s?$",
    re.IGNORECASE,
)
SPECIAL_TOKENS = re.compile(r"(eos|bos|pad|unk|sep|cls|mask|stop|start|end|image|video|audio|think|special)_?tokens?$")
"""Of a tokenizer: no secrets, whatever their name says."""
FORMS = re.compile(
    r"\b(sk-[\w-]{16,}|hf_\w{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|npm_\w{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
IN_TEXT = re.compile(
    r"(?P<user>://[^/\s:@'\"]*:)[^/\s@'\"]+(?=@)"
    r"|(?P<query>[?&][\w-]*(?:key|token|secret|password|signature|sig|auth)=)[^&\s'\"#]+"
    r"|(?P<header>\b(?:Bearer|Basic)\s+)[\w+/=.~-]{8,}",
    re.IGNORECASE,
)
"""Where only a part of the text is secret: the password of a URL, an argument of one, a header."""


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name usually holds a secret."""
    last = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition(".")[2]).replace("-", "_")
    return bool(NAMES.search(last)) and not SPECIAL_TOKENS.search(last.lower())


def hidden(text: str) -> str:
    """The text with what has the form of a secret replaced."""
    text = FORMS.sub(MASK, text)
    return IN_TEXT.sub(lambda found: f"{found['user'] or found['query'] or found['header']}{MASK}", text)


def masked(value: Any, name: str = "") -> Any:
    """Plain data with its secrets replaced. `env:NAME` and the names themselves stay.

    Args:
        name: the setting with this value.
    """
    if isinstance(value, Mapping):
        return {key: masked(inner, name if is_secret_name(name) else str(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(inner, name) for inner in value]
    if not isinstance(value, str) or ENVIRONMENT.fullmatch(value):
        return value
    return MASK if value and is_secret_name(name) else hidden(value)


def plain_secrets(value: Any, name: str = "") -> Iterator[str]:
    """The dotted names of the settings that state a secret plainly."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from plain_secrets(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from plain_secrets(inner, f"{name}.{index}")
    elif masked(value, re.sub(r"(\.\d+)+$", "", name)) != value:
        yield name


def from_environment(value: Any, name: str) -> Any:
    """Plain data with `env:NAME` replaced by that variable of the environment. Call it where the value is used.

    Raises:
        ConfigError: the variable is not set.
    """
    if isinstance(value, Mapping):
        return {key: from_environment(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(from_environment(inner, name) for inner in value)
    if not isinstance(value, str) or not (stated := ENVIRONMENT.fullmatch(value)):
        return value
    if stated[1] not in os.environ:
        raise ConfigError(
            f"{name}: {value}: the environment has no {stated[1]}", hint=f"export {stated[1]}=… before the command"
        )
    return os.environ[stated[1]]
