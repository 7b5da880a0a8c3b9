"""How often a model solves each problem: the record that grows during sampling, and its summary."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from grpo_dist.run.directory import damaged, of_kind, parse_json, read_text, write_atomically

Verdict = Literal["too_hard", "kept", "too_easy"]


@dataclass(frozen=True)
class PassRate:
    """Results of `samples` completions of one problem."""

    row: int
    """Number of the problem's row in the data it was read from, from 0."""
    samples: int
    right: int
    clipped: int
    """Completions that the length limit cut off."""

    @property
    def rate(self) -> float:
        return self.right / self.samples


@dataclass(frozen=True)
class Band:
    """The range of pass rates that are kept, both ends included."""

    low: float
    high: float

    def verdict(self, found: PassRate) -> Verdict:
        if found.rate < self.low:
            return "too_hard"
        return "too_easy" if found.rate > self.high else "kept"


def default_band(samples: int) -> Band:
    """Correct at least once and incorrect at least once.

    GRPO's advantage is a reward less the mean of its group: if all completions of a problem are correct, or all are
    wrong, it is zero (DAPO, arXiv 2503.14476, section 3.2, drops such groups). Policy improvement is bounded from below
    by the variance of the pass rate, which is largest at one half (arXiv 2504.03380).
    """
    return Band(1 / samples, 1 - 1 / samples)


@dataclass(frozen=True)
class Record:
    """A file of one JSON line per problem, in the order they are asked."""

    path: Path

    def read(self) -> list[PassRate]:
        """The complete records; a line truncated by a crash ends them.

        Raises:
            RunDirectoryError: it cannot be read, or a line is damaged.
        """
        if not self.path.exists():
            return []
        *lines, _ = read_text(self.path).split("\n")
        return [self._record(number, line) for number, line in enumerate(lines, 1)]

    def _record(self, number: int, line: str) -> PassRate:
        kept = shlex.quote(str(self.path))
        way_out = f"keep the lines before it, and the same command asks the others again: sed -i '{number},$d' {kept}"
        try:
            return of_kind(PassRate, parse_json(line), self.path, way_out)
        except ValueError as error:
            raise damaged(self.path, f"line {number} is not JSON: {error}", way_out) from error

    def keep(self, count: int) -> None:
        """Keep only the first `count` problems."""
        write_atomically(self.path, "".join(_line(one) for one in self.read()[:count]))

    def append(self, found: Sequence[PassRate]) -> None:
        """Append problems; they are on disk when this returns."""
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write("".join(_line(one) for one in found))
            handle.flush()
            os.fsync(handle.fileno())


def _line(found: PassRate) -> str:
    return f"{json.dumps(asdict(found))}\n"


def overview(found: Sequence[PassRate], band: Band) -> dict[str, Any]:
    """Counts and means over the problems (at least one); JSON-ready.

    `histogram` counts the problems with 0, 1, … correct completions; `pass_at_k` is the share with at least one.
    """
    verdicts = Counter(band.verdict(one) for one in found)
    right = Counter(one.right for one in found)
    samples = found[0].samples
    return {
        "problems": len(found),
        "samples": samples,
        "low": band.low,
        "high": band.high,
        "kept": verdicts["kept"],
        "too_easy": verdicts["too_easy"],
        "too_hard": verdicts["too_hard"],
        "mean_pass_rate": fmean(one.rate for one in found),
        "pass_at_k": fmean(one.right > 0 for one in found),
        "clipped_ratio": sum(one.clipped for one in found) / (samples * len(found)),
        "histogram": [right[count] for count in range(samples + 1)],
    }
