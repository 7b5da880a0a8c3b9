"""How an attempt ended: exit codes, and the file that carries them past srun, which keeps only the largest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from grpo_dist.run_directory import write_json

OUTCOME = "outcome.json"
DONE, FAILED, REFUSED = 0, 1, 2
TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong with the run; the same command continues it."""


@dataclass(frozen=True)
class Outcome:
    """The end of one attempt."""

    code: int
    why: str
    """One line."""
    step: int
    """Of the newest complete checkpoint; 0 when there is none."""

    def write(self, attempt: Path) -> None:
        write_json(attempt / OUTCOME, asdict(self))


def read_outcome(attempt: Path) -> Outcome | None:
    """None when the attempt ended without a word, or is still going on."""
    try:
        return Outcome(**json.loads((attempt / OUTCOME).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
