"""Whether the judge of the comparison distinguishes right answers from wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from grpo_dist.findings import Finding
from grpo_dist.rewards.preflight.cases import GOLD, WRONG, WRONG_AGAIN
from grpo_dist.rewards.preflight.trial import SAME, Scored, Trial, Values, Verdict, told

SURE = 0.95
"""Share of right answers paid as such from which gold certainly has the form the rewards expect."""
ANOTHER = (
    "name one that reads your answers: --set evaluation.scorer=FILE.py:FUNCTION; "
    "or compare nothing: --set evaluation.enabled=false"
)


def scorer_findings(trial: Trial) -> Iterator[Finding]:
    """Checks the scores given to the completions on which the rewards were tried."""
    scorer = trial.scorer
    if scorer is None or not trial.answer_column:
        return
    if scorer.tried.failures:
        first = scorer.tried.failures[0]
        yield replace(first, what=f"evaluation.scorer: {first.what}")
        return
    found = scorer.verdicts()
    if not any(one.gold for one in found) and _is_a_reward(trial) and not _surely_right(trial):
        return  # right answers cannot be written here, which was already reported for the reward
    if not all(one.gold for one in found):
        yield _blind(trial, scorer, [bool(one.gold) for one in found])
    elif all(one.said == "alike" for one in found):
        yield _blind_to_wrong(trial, scorer)
    elif _pays_no_right_answer(trial):
        yield _disagrees(trial, scorer, 0, "finds answers right that the rewards pay no more than wrong ones")
    elif stricter := _stricter(trial, found):
        what = "finds only one answer right where the rewards pay several as right"
        yield _disagrees(trial, scorer, stricter[0], what)


def _stricter(trial: Trial, found: Sequence[Verdict]) -> list[int]:
    """Problems for which the rewards also pay other answers as right, none of which the scorer accepts."""
    if not _surely_right(trial):
        return []
    pairs = enumerate(zip(trial.verdicts(trial.judging), found, strict=False))
    return [row for row, (paid, one) in pairs if paid.said == "several" and one.said == "right"]


def _blind(trial: Trial, scorer: Scored, right: list[bool]) -> Finding:
    found = f"{sum(right)} of {len(right)}" if any(right) else f"none of {len(right)}"
    lowest, level = _lowest_right(scorer), ""
    if lowest is not None:
        level = f"; they score {lowest:g} at least, wrong ones less, and evaluation.threshold is {scorer.threshold:g}"
    return Finding(
        "scorer-blind",
        "error" if not any(right) and _surely_right(trial) else "warning",
        f"evaluation.scorer {scorer.tried.name} finds {found} right answers right, written with {trial.form.name}"
        f"{level}; the comparison would count right answers as wrong"
        f"{_written(trial, scorer, right.index(False))}",
        ANOTHER if lowest is None else f"--set evaluation.threshold={lowest:g}, or {ANOTHER}",
    )


def _lowest_right(scorer: Scored) -> float | None:
    """The lowest score of right answers, if it is above every wrong one's."""
    gold, *wrong = ([0.0 if one is None else one for one in paid] for paid in _scores(scorer))
    lowest = min(gold)
    return lowest if lowest > max((max(one) for one in wrong if one), default=lowest) + SAME else None


def _scores(scorer: Scored) -> list[Values]:
    return [scorer.tried.paid[name] for name in (GOLD, WRONG, WRONG_AGAIN) if name in scorer.tried.paid]


def _blind_to_wrong(trial: Trial, scorer: Scored) -> Finding:
    return Finding(
        "scorer-blind",
        "error" if _surely_right(trial) else "warning",
        f"evaluation.scorer {scorer.tried.name} finds every answer right, wrong ones too: the comparison would tell "
        f"nothing{_written(trial, scorer, 0)}",
        f"raise evaluation.threshold, or {ANOTHER}",
    )


def _disagrees(trial: Trial, scorer: Scored, row: int, what: str) -> Finding:
    return Finding(
        "scorer-disagrees",
        "warning",
        f"evaluation.scorer {scorer.tried.name} {what}: what is trained and what is compared differ"
        f"{_written(trial, scorer, row)}",
        "let the scorer judge as the rewards do: --set evaluation.scorer=FILE.py:FUNCTION",
    )


def _is_a_reward(trial: Trial) -> bool:
    return any(one.name == trial.scorer.tried.name for one in trial.functions)


def _surely_right(trial: Trial) -> bool:
    """Whether the rewards accept gold, so that the scorer is at fault."""
    said = [one.said for one in trial.verdicts(trial.judging)]
    return bool(said) and sum(one in ("right", "several") for one in said) >= SURE * len(said)


def _pays_no_right_answer(trial: Trial) -> bool:
    """Whether functions that may know the right answer pay no right answer more than wrong ones."""
    knowing = trial.reading or [one for one in trial.functions if one.other_columns]
    return bool(knowing) and all(one.said in ("alike", "below") for one in trial.verdicts(knowing))


def _written(trial: Trial, scorer: Scored, row: int) -> str:
    """The scores of the gold of a problem and of the best-scored other answer."""
    found, paid = scorer.verdicts()[row], scorer.tried.paid
    for case in scorer.cases:
        if case.name in paid and found.completion in case.completions and case.name != GOLD:
            other = paid[case.name][case.completions.index(found.completion)]
            return told(trial, row, paid[GOLD][row], found.completion, other, "scored")
    return ""
