"""The result type of every check: the reward preflight, doctor, prefetch and the debug run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked, and the result."""

    name: str
    """A hyphenated name, stable across versions: users allow findings by it, and programs look for it."""
    status: Status
    what: str
    hint: str | None = None
    """What to type; None if nothing has to be done."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def any_error(findings: Iterable[Finding]) -> bool:
    return any(finding.status == "error" for finding in findings)
