"""What is wrong with rewards, told from what they paid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from grpo_dist.findings import Finding
from grpo_dist.rewards.preflight.cases import (
    EMPTY,
    GOLD,
    GOLD_OTHER_OPENING,
    GOLD_WORDS_AS_OPENING,
    HEDGED,
    JUNK,
    SAMPLED,
    WHAT,
    WORSE,
    WRONG,
)
from grpo_dist.rewards.preflight.forms import Form
from grpo_dist.rewards.preflight.tried import Tried, totals

TOLERATED_UNREAD = 0.05
"""Share of right answers that may be paid no better than wrong ones before that is an error."""
SLOW_STEP_SECONDS = 10.0
ALIKE_SHARE = 0.5
CUT_SHARE = 0.05
SAME = 1e-6
CHEATS = (
    ("junk-pays", JUNK, "completions may go on after the answer until they are cut; `strict_format` pays none that do"),
    ("hedging-pays", HEDGED, "guessing several times is as good as knowing; `strict` counts two solutions as none"),
)
"""(finding, case, advice) for each way to be paid as gold is, for less."""
OTHER_FORM = "state the form your rewards ask for: --set 'rewards.gold_completion=… {answer} …'"


@dataclass(frozen=True)
class Trial:
    """Everything the checks look at."""

    functions: tuple[Tried, ...]
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


def findings(trial: Trial) -> list[Finding]:
    """All that is wrong; nothing when nothing is."""
    checks = (_failures, _lost_tags, _prefilled, _never_vary, _gold_below, _unread, _cheats, _slow, _sampled)
    return [finding for check in checks for finding in check(trial)]


def _failures(trial: Trial) -> Iterator[Finding]:
    """The first of each function; a function that fails mostly fails everywhere, for one reason."""
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


def _opening_decides(one: Tried, *, prefilled: bool) -> bool:
    """Whether a function pays every right answer more when its opening is the other way, and not for its length."""
    as_written, other = one.paid.get(GOLD, ()), one.paid.get(GOLD_OTHER_OPENING, ())
    with_tag, with_words = (other if prefilled else as_written), one.paid.get(GOLD_WORDS_AS_OPENING, ())
    more, less = (with_tag, with_words) if prefilled else (with_words, with_tag)
    return _all_above(other, as_written) and _all_above(more, less)


def _all_above(high: Sequence[float | None], low: Sequence[float | None]) -> bool:
    pairs = [(h, w) for h, w in zip(high, low, strict=False) if h is not None and w is not None]
    return bool(pairs) and all(h > w + SAME for h, w in pairs)


def _never_vary(trial: Trial) -> Iterator[Finding]:
    for one in trial.functions:
        values = {value for paid in one.paid.values() for value in paid}
        if len(values) > 1 or not values or one.failures:
            continue
        (value,) = values
        pays = "leaves out every completion (None)" if value is None else f"pays {value:g} for every completion"
        # Of a form or style that no completion here has, these cases tell nothing.
        useless = one.weight and (value is None or one.asks_for_columns)
        yield Finding(
            "never-varies",
            "error" if useless else "warning",
            f"{one.name} {pays}, right, wrong, malformed or empty: nothing can be learnt from it",
            f"mend {one.name}, or take it out of rewards.functions",
        )


def _gold_below(trial: Trial) -> Iterator[Finding]:
    gold, reads = totals(trial.functions, GOLD), any(one.reads_answer for one in trial.functions)
    for case in WORSE:
        others = totals(trial.functions, case)
        below = [row for row, (right, other) in enumerate(zip(gold, others, strict=False)) if right < other - SAME]
        if below:
            row = below[0]
            yield Finding(
                "gold-below-wrong",
                "error" if reads else "warning",
                f"{len(below)} of {min(len(gold), len(others))} right answers are paid less than this: {WHAT[case]}; "
                f"e.g. {trial.answers[row]!r}: {gold[row]:g} against {others[row]:g}",
                f"look at what each function pays in the rows `{GOLD}` and `{case}`; if gold is not written as your "
                f"rewards ask, {OTHER_FORM}",
            )


def _unread(trial: Trial) -> Iterator[Finding]:
    """Right answers that are paid as wrong ones are: by all functions together, and by single ones that read them."""
    gold, wrong = totals(trial.functions, GOLD), totals(trial.functions, WRONG)
    alike = _alike(gold, wrong)
    reading = [one for one in trial.functions if one.reads_answer]
    if alike and len(alike) == len(gold):
        yield Finding(
            "gold-like-wrong",
            "error" if reading else "warning",
            "right and wrong answers are paid alike"
            + ("" if reading else "; no function looks at the right answer, so only form is trained"),
            f"look at how the answer is read out of a completion; if gold is not written as your rewards ask, "
            f"{OTHER_FORM}",
        )
        return
    if alike:
        error = bool(reading) and len(alike) > TOLERATED_UNREAD * len(gold)
        yield _unparsable("these rewards together", alike, trial, error=error)
    for one in reading:
        unread = _alike(one.paid.get(GOLD, ()), one.paid.get(WRONG, ()))
        if 0 < len(unread) < len(one.paid[GOLD]) and unread != alike:
            yield _unparsable(one.name, unread, trial, error=False)


def _alike(gold: Sequence[float | None], wrong: Sequence[float | None]) -> list[int]:
    return [
        row
        for row, (right, other) in enumerate(zip(gold, wrong, strict=False))
        if right is not None and other is not None and abs(right - other) <= SAME
    ]


def _unparsable(who: str, rows: Sequence[int], trial: Trial, *, error: bool) -> Finding:
    examples = ", ".join(repr(trial.answers[row]) for row in rows[:3])
    return Finding(
        "unparsable-gold",
        "error" if error else "warning",
        f"{len(rows)} of {len(trial.answers)} right answers are paid as wrong ones by {who}: {examples}",
        "take the answer out of its text with data.answer_extractor, leave such problems out, "
        "or use rewards that read them (strict reads LaTeX)",
    )


def _cheats(trial: Trial) -> Iterator[Finding]:
    """Ways to be paid for less; the recipe's own rewards have two of them, so they are warnings."""
    gold = _mean(trial, GOLD)
    for name, case, advice in CHEATS:
        paid = _mean(trial, case)
        if gold is not None and paid is not None and paid >= gold - SAME:
            yield Finding(name, "warning", f"{WHAT[case]}: paid {paid:g}, as gold is ({gold:g})", advice)
    silent, wrong = _mean(trial, EMPTY), _mean(trial, WRONG)
    if silent is not None and wrong is not None and silent > wrong + SAME:
        yield Finding(
            "silence-pays",
            "warning",
            f"an empty completion is paid {silent:g}, an attempt that fails {wrong:g}: not trying is rewarded",
            "pay a wrong answer no less than none",
        )


def _mean(trial: Trial, case: str) -> float | None:
    paid = totals(trial.functions, case)
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
            f"{alike} of {len(groups)} sampled groups are paid alike within: they teach nothing",
            "a larger group (grpo.num_generations), problems it sometimes solves, or a warm start for the form",
        )
    if trial.samples_cut > CUT_SHARE:
        yield Finding(
            "sampled-cut",
            "warning",
            f"{trial.samples_cut:.0%} of the sampled completions are cut off by grpo.max_completion_length",
            "raise grpo.max_completion_length, or use problems that need less",
        )
