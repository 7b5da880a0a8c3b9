"""What was tried on the rewards of a configuration, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from grpo_dist.rewards.preflight.cases import GOLD, Case
from grpo_dist.rewards.preflight.forms import Form
from grpo_dist.rewards.preflight.tried import RewardResult, judged
from grpo_dist.rewards.preflight.verdicts import Verdict, verdicts

SHOWN_CHARS = 160


@dataclass(frozen=True)
class Scored:
    """`evaluation.scorer`, tried on right and wrong answers."""

    tried: RewardResult
    threshold: float
    """A completion is right from this score on."""
    cases: tuple[Case, ...]
    """Those it was tried on, which may hold other wrong answers than the functions were tried on."""

    def right(self) -> dict[str, tuple[bool, ...]]:
        """Case → which of its completions it finds right."""
        return {
            case: tuple(value is not None and value >= self.threshold for value in paid)
            for case, paid in self.tried.paid.items()
        }

    def verdicts(self) -> list[Verdict]:
        """What it says of each problem, where right is worth 1 and anything else 0."""
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
    """Tags of the form that the tokenizer does not give back."""
    cases: Mapping[str, Case] = field(default_factory=dict)
    """All that were tried, by name."""
    questions: tuple[str, ...] = ()
    """What the problems ask."""
    unnamed: tuple[str, ...] = ()
    """Marks of the form that no prompt names."""
    answer_column: str | None = "answer"
    """Where the right answers come from; None where the data has none."""

    scorer: Scored | None = None
    """The judge of the comparison; None where nothing is compared."""

    @property
    def reading(self) -> list[RewardResult]:
        """The functions that count, and pay otherwise when they are told that another answer is right."""
        return [one for one in self.functions if one.reads_answer and one.weight and not one.failures]

    @property
    def judging(self) -> Sequence[RewardResult]:
        """Those that read answers; where none does, all together: they may know what is right by themselves."""
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
    """A problem, its right answer and another completion, each with its worth."""
    written = trial.cases[GOLD].completions[row] if GOLD in trial.cases else ""
    lines = (
        f"prompt  {short(question(trial, row))}",
        f"gold    {short(trial.answers[row])}, written as {short(written)}: {verb} {number(gold)}",
        f"tried   {short(completion)}: {verb} {number(other)}",
    )
    return "".join(f"\n    {line}" for line in lines)


def question(trial: Trial, row: int) -> str:
    return trial.questions[row] if row < len(trial.questions) else ""


def short(text: str) -> str:
    """In quotes, on one line; the middle of a long text is left out."""
    half = SHOWN_CHARS // 2
    return repr(text if len(text) <= SHOWN_CHARS else f"{text[:half]} … {text[-half:]}")


def number(value: float | None) -> str:
    return "None" if value is None else f"{value:g}"
