"""Which column holds the right answers, and whether they are rewarded as such, judged by what the functions pay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grpo_dist.findings import Finding
from grpo_dist.rewards.load import LoadedReward
from grpo_dist.rewards.preflight.cases import GOLD, WHAT, WORSE
from grpo_dist.rewards.preflight.trial import SAME, RewardResult, Trial, compared, example, judged, question, shortened

ANSWER = "answer"
NAMED = (
    *(ANSWER, "ground_truth", "solution", "target", "label", "final_answer", "reference", "expected"),
    *("answers", "ground_truths", "solutions", "targets", "labels", "references"),
)
"""Usual names of the column with reference answers."""
CERTAIN = (ANSWER, "ground_truth")
"""The names whose values are answers as a completion gives them. A target to reach, or a worked solution, may not be
one."""


def answer_column(rewards: Sequence[LoadedReward], there: Sequence[str]) -> str:
    """The column that the functions use as reference answers; `answer` if unknown."""
    asked = [column for reward in rewards for column in reward.columns if column in there]
    named = [name for name in NAMED if name in asked]
    if named:
        return named[0]
    return asked[0] if asked and ANSWER not in there else ANSWER


def written(value: Any) -> str:
    """A value as text: of several right answers the first, of a record its answer."""
    if isinstance(value, Mapping):
        return written(next((value[name] for name in NAMED if name in value), str(value)))
    if isinstance(value, (list, tuple)):
        return written(value[0]) if value else ""
    return str(value)


def other_values(values: Sequence[Any], others: Sequence[str]) -> list[Any]:
    """A wrong value for each value, of the same type: text of `others`, else the value of another problem."""
    return [
        other if isinstance(value, str) else _next(values, place)
        for place, (value, other) in enumerate(zip(values, others, strict=True))
    ]


def _next(values: Sequence[Any], place: int) -> Any:
    later = (*values[place + 1 :], *values[:place])
    return next((other for other in later if other != values[place]), values[place])


TOLERATED_UNREAD = 0.05
"""Share of right answers that may be paid no better than wrong ones; more is an error."""
OTHER_FORM = "state the form your rewards ask for: --set 'rewards.gold_completion=… {answer} …'"


def answer_findings(trial: Trial) -> Iterator[Finding]:
    """Empty if the data has no reference answers."""
    if trial.answer_column:
        for check in (_unjudged, _unread, _several, _below_nothing):
            yield from check(trial)


def certain(one: RewardResult, trial: Trial) -> bool:
    """Whether correctness depends only on the column of reference answers, so that gold is certainly right."""
    return trial.answer_column in CERTAIN and not one.other_columns


def _unjudged(trial: Trial) -> Iterator[Finding]:
    """TRL counts a completion that no function judges as 0, and only warns."""
    rows = [row for row, value in enumerate(judged(trial.functions, GOLD)) if value is None]
    if rows and len(rows) < len(trial.answers):
        yield Finding(
            "unjudged",
            "warning",
            f"{len(rows)} of {len(trial.answers)} problems are judged by no function, all return None; "
            f"e.g. {shortened(question(trial, rows[0]))}",
            "leave such problems out, or let one function judge them: a group without rewards teaches nothing",
        )


def _unread(trial: Trial) -> Iterator[Finding]:
    """Right answers that are paid like wrong ones: by all functions that read them together, and by single ones."""
    reading = trial.reading
    said = trial.verdicts(trial.judging)
    unread = [row for row, one in enumerate(said) if one.said in ("alike", "below")]
    if not reading:
        if unread:
            yield _nothing_told(trial, unread)
        return
    sure = all(certain(one, trial) for one in reading)
    who = reading[0].name if len(reading) == 1 else "these rewards together"
    if unread and len(unread) == sum(one.said != "unjudged" for one in said):
        yield _like_wrong(trial, unread, reading, error=sure)
        return
    if unread:
        yield _unparsable(who, unread, trial, reading, error=sure and len(unread) > TOLERATED_UNREAD * len(said))
    for one in reading if len(reading) > 1 else ():
        own = [row for row, found in enumerate(trial.verdicts([one])) if found.said in ("alike", "below")]
        if 0 < len(own) < len(said) and own != unread:
            yield _unparsable(one.name, own, trial, [one], error=False)


def _nothing_told(trial: Trial, rows: Sequence[int]) -> Finding:
    return Finding(
        "gold-like-wrong",
        "warning",
        f"no function pays otherwise when another answer is said to be right, and {len(rows)} of {len(trial.answers)} "
        f"answers of the column {trial.answer_column!r} are paid no more than others: "
        "of right answers nothing can be said"
        f"{example(trial, rows[0], trial.functions)}",
        "fine if only form or style is to be trained, or if other columns say what is right; if gold is not written as "
        f"your rewards ask, {OTHER_FORM}",
    )


def _like_wrong(trial: Trial, rows: Sequence[int], functions: Sequence[RewardResult], *, error: bool) -> Finding:
    below = all(one.said == "below" for one in trial.verdicts(functions) if one.said != "unjudged")
    paid = "less than wrong ones" if below else "no more than wrong ones"
    return Finding(
        "gold-below-wrong" if below else "gold-like-wrong",
        "error" if error else "warning",
        f"all {len(rows)} right answers that were tried are paid {paid}{example(trial, rows[0], functions)}",
        f"look at how the answer is read out of a completion; if gold is not written as your rewards ask, {OTHER_FORM}",
    )


def _unparsable(
    who: str, rows: Sequence[int], trial: Trial, functions: Sequence[RewardResult], *, error: bool
) -> Finding:
    examples = ", ".join(repr(trial.answers[row]) for row in rows[:3])
    return Finding(
        "unparsable-gold",
        "error" if error else "warning",
        f"{len(rows)} of {len(trial.answers)} right answers are paid no more than wrong ones by {who}: {examples}"
        f"{example(trial, rows[0], functions)}",
        "take the answer out of its text with data.answer_extractor, leave such problems out, "
        "or use rewards that read them (strict reads LaTeX)",
    )


def _several(trial: Trial) -> Iterator[Finding]:
    """If only non-answers were ever paid less than gold, gold may be right, or may not be read at all."""
    reading = trial.reading
    said = trial.verdicts(reading)
    several = [row for row, one in enumerate(said) if one.said == "several"]
    if several and not any(one.said == "right" for one in said):
        yield Finding(
            "several-right",
            "warning",
            f"{len(several)} of {len(said)} right answers are paid no more than some other answer"
            f"{example(trial, several[0], reading)}",
            "fine where a problem has several right answers; otherwise look at how the answer is read",
        )


def _below_nothing(trial: Trial) -> Iterator[Finding]:
    gold, reads = judged(trial.functions, GOLD), any(one.reads_answer for one in trial.functions)
    sure = reads and all(certain(one, trial) for one in trial.functions)
    for name in WORSE:
        others = judged(trial.functions, name)
        pairs = list(zip(gold, others, strict=False))
        below = [row for row, (one, other) in enumerate(pairs) if None not in (one, other) and one < other - SAME]
        if below:
            row = below[0]
            yield Finding(
                "gold-below-wrong",
                "error" if sure else "warning",
                f"{len(below)} of {len(pairs)} right answers are paid less than this: {WHAT[name]}"
                f"{compared(trial, row, None, trial.cases.get(name))}",
                f"look at what each function pays in the rows `{GOLD}` and `{name}`; if gold is not written as your "
                f"rewards ask, {OTHER_FORM}",
            )
