"""A plan that cannot be, with the nearest that can: what to type, each tried before it is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from pydantic import ValidationError

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError

SHOWN = 3


class Way(NamedTuple):
    """A change of settings that mends what was refused, and what it comes to."""

    settings: dict[str, Any]
    """Dotted setting → value."""
    then: str = ""

    def __str__(self) -> str:
        return " ".join(f"--set {name}={_written(value)}" for name, value in self.settings.items())


class Refused(PlanError):
    """A `PlanError` whose hint is found by trying.

    Args:
        ways: changes that mend this fault, nearest first; not looked at until `find_hint`. They may run into another.
        otherwise: the hint when there is none.
    """

    def __init__(self, message: str, ways: Iterable[Way], *, otherwise: str | None = None) -> None:
        super().__init__(message, hint=otherwise)
        self.ways = ways

    def find_hint(self, works: Callable[[Way], bool] = lambda _: True) -> Refused:
        """With the first ways that work as the hint; where none works as a whole, those that mend this fault."""
        ways, tried = iter(self.ways), []
        found = list(islice((way for way in ways if tried.append(way) or works(way)), SHOWN))
        if found:
            self.hint = f"nearest that can run:{_listed(found)}"
        elif tried:
            self.hint = f"nearest, each mends this but not all that is wrong:{_listed(tried[:SHOWN])}"
        return self


def changed(config: RunConfig, way: Way) -> RunConfig | None:
    """The configuration with those settings; None when they contradict others."""
    plain = config.model_dump()
    for name, value in way.settings.items():
        section, key = name.split(".")
        plain[section][key] = value
    try:
        return RunConfig.model_validate(plain)
    except ValidationError:
        return None


def _listed(ways: list[Way]) -> str:
    width = max(len(str(way)) for way in ways)
    return "".join(f"\n      {way!s:<{width}}  {way.then}".rstrip() for way in ways)


def _written(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else f"{value}"
