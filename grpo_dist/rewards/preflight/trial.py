"""The completions tried on the rewards of a configuration, and how they are described."""

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
        f"prompt  {short(question(trial, row))}",
        f"gold    {short(trial.answers[row])}, written as {short(written)}: {verb} {number(gold)}",
        f"tried   {short(completion)}: {verb} {number(other)}",
    )
    return "".join(f"\n    {line}" for line in lines)


def question(trial: Trial, row: int) -> str:
    return trial.questions[row] if row < len(trial.questions) else ""


def short(text: str) -> str:
    """In quotes, on one line; the middle of a long text is omitted."""
    half = SHOWN_CHARS // 2
    return repr(text if len(text) <= SHOWN_CHARS else f"{text[:half]} … {text[-half:]}")


def number(value: float | None) -> str:
    return "None" if value is None else f"{value:g}"
