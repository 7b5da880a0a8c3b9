"""`comparison.json`: base against trained model on the same held-out problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpo_dist.report.numbers import plural


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; fractions of problems, from 0 to 1."""

    estimate: float
    low: float
    high: float

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Interval:
        return cls(float(fields["estimate"]), float(fields["low"]), float(fields["high"]))

    @property
    def sign(self) -> int:
        """Of a difference: 1 or -1 where the whole interval is above or below zero, else 0."""
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True)
class Scores:
    """One model. mean_at_k and pass_at_k are None when no completions were sampled; lengths are in tokens."""

    greedy_accuracy: Interval
    mean_at_k: Interval | None
    pass_at_k: Interval | None
    mean_completion_length: float | None
    clipped_ratio: float | None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Scores:
        sampled = {k: Interval.from_json(fields[k]) if fields.get(k) else None for k in ("mean_at_k", "pass_at_k")}
        return cls(
            greedy_accuracy=Interval.from_json(fields["greedy_accuracy"]),
            mean_completion_length=fields.get("mean_completion_length"),
            clipped_ratio=fields.get("clipped_ratio"),
            **sampled,
        )


@dataclass(frozen=True)
class Measure:
    """One statistic of both models."""

    label: str
    base: Interval
    trained: Interval
    difference: Interval | None
    """Trained minus base, paired by problem; None where the file has none."""

    @property
    def moved(self) -> float:
        return self.difference.estimate if self.difference else self.trained.estimate - self.base.estimate

    @property
    def sign(self) -> int:
        """1 where the trained model is better beyond chance, -1 where it is worse, else 0.

        Told by the paired difference; without one, by intervals that do not touch.
        """
        if self.difference:
            return self.difference.sign
        return (self.trained.low > self.base.high) - (self.trained.high < self.base.low)


@dataclass(frozen=True)
class Flip:
    """A problem that one model answers and the other does not, with both greedy completions."""

    prompt: Any
    answer: str
    base: str
    trained: str

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Flip:
        return cls(fields["prompt"], str(fields["answer"]), str(fields["base"]), str(fields["trained"]))


@dataclass(frozen=True)
class Attempt:
    """One model on one problem; samples_correct counts among the k samples, None without samples."""

    greedy_correct: bool
    samples_correct: int | None
    greedy: str

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Attempt:
        return cls(bool(fields["greedy_correct"]), fields.get("samples_correct"), str(fields["greedy"]))


@dataclass(frozen=True)
class Problem:
    """One held-out problem; `prompt` is a text or a list of messages."""

    index: int
    prompt: Any
    answer: str
    base: Attempt
    trained: Attempt

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Problem:
        return cls(
            index=int(fields["index"]),
            prompt=fields["prompt"],
            answer=str(fields["answer"]),
            base=Attempt.from_json(fields["base"]),
            trained=Attempt.from_json(fields["trained"]),
        )


@dataclass(frozen=True)
class Comparison:
    """The whole file. Differences are trained minus base, paired by problem."""

    problems: int
    """Rows."""
    different_problems: int
    """Those that ask something else; intervals count these."""
    k: int
    confidence: float
    scorer: str
    base: Scores
    trained: Scores
    difference: Interval
    """In greedy accuracy."""
    differences: Mapping[str, Interval | None]
    """Statistic → its own; without those that older files lack, None for what was not sampled."""
    gained: int
    lost: int
    gained_examples: tuple[Flip, ...]
    lost_examples: tuple[Flip, ...]
    per_problem: tuple[Problem, ...]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Comparison:
        """Read the file's object; KeyError, TypeError or ValueError when something is missing or of another kind."""
        flipped = fields.get("flipped") or {}
        return cls(
            problems=int(fields["problems"]),
            different_problems=int(fields.get("different_problems", fields["problems"])),
            k=int(fields["k"]),
            confidence=float(fields["confidence"]),
            scorer=str(fields["scorer"]),
            base=Scores.from_json(fields["base"]),
            trained=Scores.from_json(fields["trained"]),
            difference=Interval.from_json(fields["difference"]),
            differences={
                name: Interval.from_json(found) if found else None
                for name, found in {**fields.get("differences", {}), "greedy_accuracy": fields["difference"]}.items()
            },
            gained=int(fields["gained"]),
            lost=int(fields["lost"]),
            gained_examples=tuple(Flip.from_json(flip) for flip in flipped.get("gained", ())),
            lost_examples=tuple(Flip.from_json(flip) for flip in flipped.get("lost", ())),
            per_problem=tuple(Problem.from_json(problem) for problem in fields.get("per_problem", ())),
        )

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The statistics that both models have."""
        named = (("Greedy", "greedy_accuracy"), (f"mean@{self.k}", "mean_at_k"), (f"pass@{self.k}", "pass_at_k"))
        both = ((label, name, getattr(self.base, name), getattr(self.trained, name)) for label, name in named)
        return tuple(
            Measure(label, base, trained, self.differences.get(name))
            for label, name, base, trained in both
            if base and trained
        )

    @property
    def none_right(self) -> bool:
        """Whether nothing that either model wrote was judged right."""
        return not any(one.base.estimate or one.trained.estimate for one in self.measures)

    @property
    def counted(self) -> str:
        """How many problems there are, and how many of them differ where some repeat others."""
        rows = plural(self.problems, "held-out problem")
        return rows if self.different_problems == self.problems else f"{rows} ({self.different_problems:,} different)"
