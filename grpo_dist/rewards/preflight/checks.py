"""Detects faults of rewards from what they paid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from grpo_dist.findings import Finding
from grpo_dist.rewards.preflight.answers import OTHER_FORM, answer_findings, certain
from grpo_dist.rewards.preflight.cases import (
    EMPTY,
    GOLD,
    GOLD_OTHER_OPENING,
    GOLD_WORDS_AS_OPENING,
    HEDGED,
    JUNK,
    SAMPLED,
    UNTAGGED,
    WHAT,
    WRONG,
)
from grpo_dist.rewards.preflight.scorer import scorer_findings
from grpo_dist.rewards.preflight.trial import SAME, RewardResult, Trial, compared, judged, totals

SLOW_STEP_SECONDS = 10.0
ALIKE_SHARE = 0.5
CUT_SHARE = 0.05
CHEATS = (
    ("junk-pays", JUNK, "completions may continue after the answer until cut; `strict_format` pays none that do"),
    ("hedging-pays", HEDGED, "guessing several times is as good as knowing; `strict` counts two solutions as none"),
)
"""(finding, case, advice) for each way to be paid like gold with less."""


_NAME_THE_ANSWERS = (
    "the data names no right answers to try; if a column has some, or reference programs, name it: "
    "--set 'data.columns={answer: COLUMN}'"
)


def findings(trial: Trial) -> list[Finding]:
    """All findings."""
    of_form = (_failures, _lost_tags, _prefilled, _unnamed)
    checks = (*of_form, _never_vary, answer_findings, scorer_findings, _cheats, _slow, _sampled)
    return [finding for check in checks for finding in check(trial)]


def _failures(trial: Trial) -> Iterator[Finding]:
    """The first failure of each function; a failing function mostly fails everywhere for the same reason."""
    for one in trial.functions:
        for first in one.failures[:1]:
            more = len(one.failures) - 1
            yield replace(first, what=f"{first.what}\n  and so in {more} more") if more else first


def _lost_tags(trial: Trial) -> Iterator[Finding]:
    if trial.lost_tags:
        tags = ", ".join(trial.lost_tags)
        yield Finding(
            "tags-lost",
            "error",
            f"the tokenizer leaves {tags} out of the text that rewards read: special tokens are not decoded",
            "add them as plain tokens (special=False), or ask for other tags",
        )


def _prefilled(trial: Trial) -> Iterator[Finding]:
    tag = trial.form.opening
    for one in trial.functions:
        as_written, other = one.mean(GOLD), one.mean(GOLD_OTHER_OPENING)
        if not _opening_decides(one, prefilled=trial.prefilled == tag):
            continue
        if trial.prefilled == tag:
            yield Finding(
                "prefilled-tag",
                "error",
                f"{one.name} pays {other:g} for a completion that starts with {tag} and {as_written:g} for one that "
                f"does not; the chat template puts {tag} into the prompt, so no completion starts with it",
                f"let {one.name} take completions without {tag}, or take a template that does not prefill it: "
                "--set data.chat_template=FILE",
            )
        else:
            yield Finding(
                "prefilled-tag",
                "error",
                f"{one.name} pays {other:g} for a completion without {tag} and {as_written:g} for one that starts "
                f"with it; the chat template does not prefill {tag}, so the model has to write it",
                f"let {one.name} take completions with {tag}, or take a template that prefills it: "
                "--set data.chat_template=recipe",
            )


def _opening_decides(one: RewardResult, *, prefilled: bool) -> bool:
    """Whether a function pays every right answer more with the opening tag the other way, and not because of length."""
    as_written, other = one.paid.get(GOLD, ()), one.paid.get(GOLD_OTHER_OPENING, ())
    with_tag, with_words = (other if prefilled else as_written), one.paid.get(GOLD_WORDS_AS_OPENING, ())
    more, less = (with_tag, with_words) if prefilled else (with_words, with_tag)
    return _all_above(other, as_written) and _all_above(more, less)


def _all_above(high: Sequence[float | None], low: Sequence[float | None]) -> bool:
    pairs = [(h, w) for h, w in zip(high, low, strict=False) if h is not None and w is not None]
    return bool(pairs) and all(h > w + SAME for h, w in pairs)


def _unnamed(trial: Trial) -> Iterator[Finding]:
    """Marks that decide the reward and that a model can only produce by chance."""
    gold, plain = judged(trial.functions, GOLD), judged(trial.functions, UNTAGGED)
    of_form = trial.reading or len(set(gold)) == 1  # otherwise the marks only happen to match a style reward
    if trial.unnamed and of_form and _all_above(gold, plain):
        marks = ", ".join(trial.unnamed)
        yield Finding(
            "form-unnamed",
            "warning",
            f"no prompt names {marks}, and the rewards pay {trial.form.name} more than the same answer in plain words: "
            "the model can only come upon them by chance",
            "ask for them in the prompt: --set 'data.system_prompt=…' (recipe names those of strict and notebook), "
            "or teach them with warm_start; fine where the model has learnt them already",
        )


def _never_vary(trial: Trial) -> Iterator[Finding]:
    for one in trial.functions:
        values = {value for paid in one.paid.values() for value in paid}
        if len(values) > 1 or not values or one.failures:
            continue
        (value,) = values
        pays = "leaves out every completion (None)" if value is None else f"pays {value:g} for every completion"
        told = certain(one, trial) and (value is None or one.asks_for_columns)
        yield Finding(
            "never-varies",
            "error" if one.weight and told else "warning",
            f"{one.name} {pays}, right, wrong, malformed or empty: nothing can be learnt from these"
            f"{compared(trial, 0, one, trial.cases.get(WRONG))}",
            f"fix {one.name}, or take it out of rewards.functions; if it pays for another form, {OTHER_FORM}"
            if trial.answer_column
            else _NAME_THE_ANSWERS,
        )


def _cheats(trial: Trial) -> Iterator[Finding]:
    """Ways to be paid with less; the recipe's own rewards have two of them, so they are warnings."""
    gold, wrong = _mean(trial, GOLD), _mean(trial, WRONG)
    known = gold is not None and wrong is not None and gold > wrong + SAME
    for name, case, advice in CHEATS if known else ():
        paid, gold = _mean(trial, case), _mean(trial, GOLD, len(totals(trial.functions, case)))
        if paid is not None and paid >= gold - SAME:
            yield Finding(name, "warning", f"{WHAT[case]}: paid {paid:g}, like gold ({gold:g})", advice)
    silent = _mean(trial, EMPTY)
    if silent is not None and wrong is not None and silent > wrong + SAME:
        yield Finding(
            "silence-pays",
            "warning",
            f"an empty completion is paid {silent:g}, an attempt that fails {wrong:g}: not trying is rewarded",
            "pay a wrong answer no less than none",
        )


def _mean(trial: Trial, case: str, first: int | None = None) -> float | None:
    """Mean over the first `first` problems of a case, or over all."""
    paid = totals(trial.functions, case)[:first]
    return fmean(paid) if paid else None


def _slow(trial: Trial) -> Iterator[Finding]:
    for one in trial.functions:
        step = one.seconds_per_completion * trial.completions_per_step
        if step > SLOW_STEP_SECONDS:
            yield Finding(
                "slow",
                "warning",
                f"{one.name} takes up to {one.seconds_per_completion:.3g} s per completion: {step:,.0f} s for the "
                f"{trial.completions_per_step:,} of a step",
                "GPUs wait while it runs: make it faster, or async",
            )


def _sampled(trial: Trial) -> Iterator[Finding]:
    size = trial.samples_per_problem
    paid = totals(trial.functions, SAMPLED)
    if not (size and paid):
        return
    groups = [paid[start : start + size] for start in range(0, len(paid), size)]
    alike = sum(max(group) - min(group) <= SAME for group in groups)
    if alike > ALIKE_SHARE * len(groups):
        yield Finding(
            "sampled-alike",
            "warning",
            f"{alike} of {len(groups)} sampled groups have identical rewards: they teach nothing",
            "a larger group (grpo.num_generations), problems it sometimes solves, or a warm start for the form",
        )
    if trial.samples_cut > CUT_SHARE:
        yield Finding(
            "sampled-cut",
            "warning",
            f"{trial.samples_cut:.0%} of the sampled completions are cut off by grpo.max_completion_length",
            "raise grpo.max_completion_length, or use problems that need less",
        )
