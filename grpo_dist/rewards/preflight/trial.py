"""What the functions of a configuration paid for the completions tried on them, how they judge, and how to say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from grpo_dist.findings import Finding
from grpo_dist.rewards.preflight.cases import GOLD, SWAPPED, WRONG, WRONG_AGAIN, Case
from grpo_dist.rewards.preflight.forms import Form

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class RewardResult:
    """One function, and what it did with each case."""

    name: str
    weight: float
    paid: Mapping[str, Values]
    """Case → a value for each completion; a case in which it failed is not there."""
    seconds_per_completion: float
    """Most seconds it took, over the cases."""
    failures: tuple[Finding, ...] = ()
    asks_for_columns: bool = True
    """Whether it reads columns of the data; one that does not judges length, form or style."""
    other_columns: tuple[str, ...] = ()
    """Columns it needs besides the reference answers: these may determine what is right."""

    @property
    def reads_answer(self) -> bool:
        """Whether it pays the same completion differently when given another reference answer."""
        return self.paid.get(GOLD, ()) != self.paid.get(SWAPPED, ())

    def mean(self, case: str) -> float | None:
        """Mean over the completions it rewarded; None if it returned None for all, or failed."""
        values = [value for value in self.paid.get(case, ()) if value is not None]
        return fmean(values) if values else None


def totals(functions: Sequence[RewardResult], case: str) -> tuple[float, ...]:
    """The reward of each completion, as TRL sums it: weighted, with None counting as nothing.

    Functions that failed anywhere are ignored; () if none remains.
    """
    return tuple(0.0 if one is None else one for one in judged(functions, case))


def judged(functions: Sequence[RewardResult], case: str) -> Values:
    """The same, but None for a completion for which every function returns None."""
    sound = [one for one in functions if not one.failures]
    columns = [[_worth(value, one.weight) for value in one.paid.get(case, ())] for one in sound]
    return tuple(map(_sum, zip(*columns, strict=True)))


def _worth(value: float | None, weight: float) -> float | None:
    return None if value is None else value * weight


def _sum(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) if there else None


SAME = 1e-6
Said = Literal["right", "several", "alike", "below", "unjudged"]
"""right: gold is paid more than every other answer; several: as much as some and more than others; alike: no more than
the others; below: less than each of them; unjudged: None from all functions."""


@dataclass(frozen=True)
class Verdict:
    """One problem: what was paid for gold, and for the other answer that was paid most."""

    said: Said
    gold: float | None
    other: float | None
    completion: str
    """The case of that other answer."""


def verdicts(functions: Sequence[RewardResult], cases: Sequence[Case]) -> list[Verdict]:
    """The joint verdict of these functions on each problem. Only what they paid for `cases` is considered."""
    gold = judged(functions, GOLD)
    tried: list[list[tuple[float, str]]] = [[] for _ in gold]
    for case in cases:
        if case.name in (WRONG, WRONG_AGAIN):
            paid = judged(functions, case.name)
            for row, text, value in zip(case.problems, case.completions, paid, strict=False):
                if value is not None:
                    tried[row].append((value, text))
    rows = list(zip(gold, tried, strict=True))
    clear = [one for one, others in rows if one is not None and others and one > max(others)[0] + SAME]
    return [_verdict(one, others, min(clear, default=None)) for one, others in rows]


def undecided(found: Sequence[Verdict]) -> list[int]:
    """Problems for which another answer was paid as much as gold, or more."""
    return [row for row, one in enumerate(found) if one.said not in ("right", "unjudged")]


def _verdict(gold: float | None, others: Sequence[tuple[float, str]], clear: float | None) -> Verdict:
    """`clear` is the least that gold is paid where it is paid more than every other answer; None if there is no such
    row."""
    if gold is None or not others:
        return Verdict("unjudged", gold, None, "")
    lowest, (highest, text) = min(others)[0], max(others)
    if gold > highest + SAME:
        said: Said = "right"
    elif gold < lowest - SAME:
        said = "below"
    elif gold > lowest + SAME and (clear is None or gold >= clear - SAME):
        said = "several"
    else:
        said = "alike"
    return Verdict(said, gold, highest, text)


SHOWN_CHARS = 160


@dataclass(frozen=True)
class Scored:
    """`evaluation.scorer`, tried on right and wrong answers."""

    tried: RewardResult
    threshold: float
    """A completion is right from this score on."""
    cases: tuple[Case, ...]
    """The cases it was tried on; their wrong answers may differ from those the functions were tried on."""

    def right(self) -> dict[str, tuple[bool, ...]]:
        """Case → which of its completions it accepts."""
        return {
            case: tuple(value is not None and value >= self.threshold for value in paid)
            for case, paid in self.tried.paid.items()
        }

    def verdicts(self) -> list[Verdict]:
        """Its verdict on each problem, with right counting 1 and anything else 0."""
        worth = {case: tuple(map(float, right)) for case, right in self.right().items()}
        return verdicts((replace(self.tried, weight=1.0, paid=worth),), self.cases)


@dataclass(frozen=True)
class Trial:
    """Everything the checks look at."""

    functions: tuple[RewardResult, ...]
    form: Form
    prefilled: str | None
    """The tag the chat template has put before the completion."""
    answers: tuple[str, ...]
    completions_per_step: int
    samples_per_problem: int
    """Completions of one problem among the sampled ones; 0 when none were."""
    samples_cut: float
    """Share of sampled completions that the limit cut off."""
    lost_tags: tuple[str, ...]
    """Tags of the form that the tokenizer does not reproduce."""
    cases: Mapping[str, Case] = field(default_factory=dict)
    """All cases tried, by name."""
    questions: tuple[str, ...] = ()
    """The questions of the problems."""
    unnamed: tuple[str, ...] = ()
    """Marks of the form that no prompt mentions."""
    answer_column: str | None = "answer"
    """The column of the right answers; None if the data has none."""

    scorer: Scored | None = None
    """The judge of the comparison; None if nothing is compared."""

    @property
    def reading(self) -> list[RewardResult]:
        """The weighted functions that pay differently when given another reference answer."""
        return [one for one in self.functions if one.reads_answer and one.weight and not one.failures]

    @property
    def judging(self) -> Sequence[RewardResult]:
        """The functions that read answers; if none does, all together: they may determine correctness themselves."""
        return self.reading or self.functions

    def verdicts(self, functions: Sequence[RewardResult]) -> list[Verdict]:
        return verdicts(functions, tuple(self.cases.values()))


def example(trial: Trial, row: int, functions: Sequence[RewardResult]) -> str:
    """The problem, and the two completions that were compared, each with what it was paid."""
    found = trial.verdicts(functions)[row]
    return told(trial, row, found.gold, found.completion, found.other)


def compared(trial: Trial, row: int, one: RewardResult | None, case: Case | None) -> str:
    """The same for a completion of another case; of one function, or of all together."""
    if case is None:
        return ""
    functions = trial.functions if one is None else (replace(one, weight=1.0),)
    gold, other = judged(functions, GOLD), judged(functions, case.name)
    return told(trial, row, gold[row], case.completions[row], other[row])


def told(trial: Trial, row: int, gold: float | None, completion: str, other: float | None, verb: str = "paid") -> str:
    """A problem, its right answer and another completion, each with what it was paid."""
    written = trial.cases[GOLD].completions[row] if GOLD in trial.cases else ""
    lines = (
        f"prompt  {shortened(question(trial, row))}",
        f"gold    {shortened(trial.answers[row])}, written as {shortened(written)}: {verb} {number(gold)}",
        f"tried   {shortened(completion)}: {verb} {number(other)}",
    )
    return "".join(f"\n    {line}" for line in lines)


def question(trial: Trial, row: int) -> str:
    return trial.questions[row] if row < len(trial.questions) else ""


def shortened(text: str) -> str:
    """In quotes, on one line; the middle of a long text is omitted."""
    half = SHOWN_CHARS // 2
    return repr(text if len(text) <= SHOWN_CHARS else f"{text[:half]} … {text[-half:]}")


def number(value: float | None) -> str:
    return "None" if value is None else f"{value:g}"
