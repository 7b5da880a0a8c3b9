"""The form in which every check of the program reports: the reward preflight, doctor and prefetch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what came of it."""

    name: str
    """A word with hyphens, the same in every version: users name it to allow it, programs look for it."""
    status: Status
    what: str
    hint: str | None = None
    """What to type; None where nothing is to be done."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def any_error(findings: Iterable[Finding]) -> bool:
    return any(finding.status == "error" for finding in findings)
