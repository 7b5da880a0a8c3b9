"""What stands in a directory against what would be rendered into it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

LINES_SHOWN = 20


@dataclass(frozen=True)
class Difference:
    """One file that is not as rendered."""

    name: str
    kind: Literal["missing", "stale", "extra"]
    lines: tuple[str, ...] = ()
    """For a stale file, where it differs: a unified diff, shortened."""


def differences(there: Mapping[str, str], rendered: Mapping[str, str]) -> list[Difference]:
    """Compare name → text on both sides, in the order of the names."""
    return [found for name in sorted({**there, **rendered}) for found in _difference(name, there, rendered)]


def _difference(name: str, there: Mapping[str, str], rendered: Mapping[str, str]) -> Iterator[Difference]:
    if name not in there:
        yield Difference(name, "missing")
    elif name not in rendered:
        yield Difference(name, "extra")
    elif there[name] != rendered[name]:
        yield Difference(name, "stale", tuple(_diff(there[name], rendered[name])))


def _diff(there: str, rendered: str) -> list[str]:
    lines = list(difflib.unified_diff(there.splitlines(), rendered.splitlines(), "there", "rendered", n=1, lineterm=""))
    if len(lines) <= LINES_SHOWN:
        return lines or ["(line ends differ)"]
    return [*lines[:LINES_SHOWN], f"… {len(lines) - LINES_SHOWN} lines more"]
