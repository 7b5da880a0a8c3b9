"""The counts and notes of a preparation: what was loaded, dropped and kept."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Collects counts and notes while problems pass through the steps.

    `what` opens each note (`held-out: …`) and, without hyphen or space, each count (`heldout_too_long`).
    """

    what: str = ""
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.notes.append(f"{self.what}: {text}" if self.what else text)

    def count(self, name: str, number: int) -> None:
        prefix = f"{re.sub('[- ]', '', self.what)}_" if self.what else ""
        self.counts[prefix + name] = number
