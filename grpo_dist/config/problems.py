"""Problems of a configuration with their place, formatted as one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from grpo_dist.errors import ConfigError

DottedPath = tuple[str | int, ...]

SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Place:
    """Where a value was set: a line of a file, or an override."""

    label: str
    """`configs/x.yaml:3` or `--set grpo.seed=1`."""
    order: tuple[int, ...]
    """Files before overrides, then by line and column, or by position on the command line."""
    names: DottedPath | None = None
    """The setting named by the label itself, so that it is not repeated."""
    text: str | None = None
    """A scalar as it was written."""


@dataclass(frozen=True)
class ConfigProblem:
    """One line for the user. `what` reads `what is wrong; what to type`."""

    place: Place
    path: DottedPath
    what: str

    def __str__(self) -> str:
        named = not self.path or self.path == self.place.names
        return visible(": ".join([self.place.label, *([] if named else [dotted(self.path)]), self.what]))


class UnreadableConfig(Exception):
    """A text that cannot be used at all because of one problem."""

    def __init__(self, place: Place, path: DottedPath, what: str) -> None:
        super().__init__(what)
        self.problem = ConfigProblem(place, path, what)


def error(problems: Iterable[ConfigProblem]) -> ConfigError:
    """All problems in the order of their places, one line each, without duplicates."""
    ordered = sorted(problems, key=lambda problem: problem.place.order)
    return ConfigError("\n".join(dict.fromkeys(map(str, ordered))))


def dotted(path: DottedPath) -> str:
    return ".".join(shortened(str(key)) for key in path)


def shown(value: Any) -> str:
    """A value as part of a sentence; the original text of a scalar, the kind of anything else."""
    if isinstance(value, str):
        return f"'{shortened(value)}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a group of settings" if value else "an empty group of settings"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return shortened(str(value))


def shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def visible(text: str) -> str:
    """One line that any terminal can print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
