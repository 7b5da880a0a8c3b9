"""From the configured data to the problems of a run: loaded, checked, measured, split and counted.

Also decides how long a prompt may be (arithmetic on token counts), and which problems are held out of training; equal
prompts are never on both sides.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_dist.config.sections import DataSection
from grpo_dist.data.columns import Tally, map_columns
from grpo_dist.data.identity import KEY, Problems, first_rows, problem_key, problem_keys
from grpo_dist.data.messages import (
    Messages,
    Render,
    system_adder,
    system_prompt,
    template_accepts_system,
    to_messages,
)
from grpo_dist.data.problems import to_problems
from grpo_dist.data.readers import from_rows
from grpo_dist.data.sources import load_rows
from grpo_dist.data.text import excerpt, place
from grpo_dist.errors import DataError
from grpo_dist.text import plural

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class LengthLimit:
    """Limits in tokens, generation prompt included."""

    stated: int | None
    """From `data.max_prompt_length` or the quantile; None when neither is given."""
    available: int
    """What the context length leaves for a prompt beside the longest completion."""

    def too_long(self, lengths: Sequence[int]) -> list[int]:
        """Indices of prompts above the configured limit."""
        return [] if self.stated is None else [index for index, length in enumerate(lengths) if length > self.stated]

    def no_room(self, lengths: Sequence[int]) -> list[int]:
        """Indices of prompts within the configured limit that leave no room for the completion."""
        stated = self.available if self.stated is None else self.stated
        return [
            index
            for index, length in enumerate(lengths)
            if length > self.available and (self.stated is None or length <= stated)
        ]


def length_limit(
    lengths: Sequence[int],
    max_prompt_length: int | None,
    quantile: float | None,
    context_length: int,
    max_completion_length: int,
) -> LengthLimit:
    """The limit for prompts of these lengths; at least one of them is kept.

    `context_length` counts prompt plus completion. The quantile is numpy's (linear), rounded down: lengths ≤ it
    are kept.

    Raises:
        DataError: no prompt would remain.
    """
    stated = max_prompt_length if quantile is None else _quantile(lengths, quantile)
    limit = LengthLimit(stated, context_length - max_completion_length)
    shortest = min(lengths)
    if stated is not None and shortest > stated:
        raise DataError(
            f"data.max_prompt_length: all {len(lengths):,} prompts are longer than {stated} tokens; "
            f"the shortest has {shortest}, the longest {max(lengths)}",
            hint=f"--set data.max_prompt_length={max(lengths)}",
        )
    if len(limit.too_long(lengths)) + len(limit.no_room(lengths)) == len(lengths):
        raise _none_fits(lengths, context_length, max_completion_length)
    return limit


def _quantile(lengths: Sequence[int], quantile: float) -> int:
    import numpy

    return int(numpy.quantile(lengths, quantile))


def _none_fits(lengths: Sequence[int], context_length: int, max_completion_length: int) -> DataError:
    shortest, longest = min(lengths), max(lengths)
    fits = context_length - longest if context_length > longest else context_length - shortest
    hint = (
        f"--set grpo.max_completion_length={fits}"
        if fits > 0
        else f"model.max_length has to be more than {shortest} tokens: raise it, or shorten the prompts"
    )
    return DataError(
        f"no prompt fits: the shortest has {shortest} tokens, the longest {longest}; "
        f"the model's room of {context_length} less grpo.max_completion_length {max_completion_length} "
        f"leaves {context_length - max_completion_length}",
        hint=hint,
    )


def split_holdout(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, held-out): `fraction` of the different problems, at least one, is held out.

    The choice depends on the seed and the prompts alone, so neither the order of rows nor other columns change it.

    Raises:
        DataError: fewer than two different problems.
    """
    keys = problem_keys(dataset)
    heldout = choose_held_out(keys, fraction, seed)
    return (
        dataset.select([row for row, key in enumerate(keys) if key not in heldout]),
        dataset.select([row for row, key in enumerate(keys) if key in heldout]),
    )


def choose_held_out(keys: Sequence[str], fraction: float, seed: int) -> set[str]:
    """The keys that are held out.

    Raises:
        DataError: fewer than two different ones.
    """
    ranked = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    if len(ranked) < 2:
        raise DataError(
            f"data: {len(keys)} rows with 1 problem cannot be divided into training and held-out problems",
            hint="--set data.eval_split=NAME, or --set evaluation.enabled=false",
        )
    amount = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
    return set(ranked[:amount])


def without_leaks(train: Dataset, held: Problems) -> Dataset:
    """The training rows whose problem is not held out.

    Raises:
        DataError: none is left.
    """
    leaked = set(held.rows_among(problem_keys(train)))
    kept = [row for row in range(len(train)) if row not in leaked]
    if not kept:
        raise DataError(
            f"data.eval_split: all {len(train):,} training problems are held out too",
            hint="name another split, or leave it out: --set data.eval_split=null",
        )
    return train.select(kept)


def limit(dataset: Dataset, n: int | None, seed: int) -> Dataset:
    """At most `n` rows, chosen by the seed, in their order; all of them for None."""
    if n is None or n >= len(dataset):
        return dataset
    return dataset.select(sorted(random.Random(seed).sample(range(len(dataset)), n)))


DEFAULT_EVAL_FRACTION = 0.05

CountTokens = Callable[[Sequence[Messages]], list[int]]
"""Function from prompts to their lengths in tokens, generation prompt included."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Model:
    """What data preparation needs to know about a model and its tokenizer."""

    render: Render
    count_tokens: CountTokens
    context_length: int
    """Context length in tokens, prompt plus completion."""
    max_completion_length: int
    """Longest completion that is requested, in tokens."""


@dataclass(frozen=True)
class Prepared:
    """Problems with the columns `prompt` (list of {role, content}), `answer` (text, if there is one) and others."""

    train: Dataset
    heldout: Dataset | None
    """None when nothing is held out."""
    notes: tuple[str, ...]
    """What happened, for the user."""
    counts: Mapping[str, int]
    """The same in numbers: loaded, dropped for each reason, train, heldout."""
    keys: tuple[str, ...]
    """The problem key of each training row."""
    held: Problems
    """Every problem that must not be trained on, including those too long or too many for the comparison."""


def prepare(
    section: DataSection,
    model: Model,
    *,
    seed: int,
    need_answers: bool,
    hold_out: bool,
    num_problems: int | None = None,
    rows: tuple[Rows, Rows] | None = None,
    reads: Callable[[str], bool] = lambda name: False,
) -> Prepared:
    """Problems to train on, and at most `num_problems` different problems that are held out.

    `rows` are (train, held-out) rows that replace `section.name_or_path`, for embedded problems; `reads` is as in
    `map_columns`.

    Raises:
        DataError: the data cannot be loaded or used; the message says which row, column or limit.
    """
    tally, held_tally = Tally(), Tally("held-out")
    text = system_prompt(section)
    accepts_system = template_accepts_system(model.render)
    if text is not None and not accepts_system:
        tally.note("the chat template has no system role: the system prompt comes before the first user message")
    add_system = system_adder(text, accepts_system)
    loaded, loaded_heldout = _load(section, hold_out, rows)
    train = to_problems(loaded, section, add_system, need_answers, tally, reads)
    heldout = None
    if loaded_heldout is not None:
        heldout = to_problems(loaded_heldout, section, add_system, need_answers, held_tally, reads)
        train = _without_leaks(train, heldout, tally)
    _tell_repeats(train, tally)
    train, limits = _measured(train, section, model, tally)
    held = Problems(problem_keys(heldout) if heldout is not None else ())
    if heldout is not None:
        heldout = _within(heldout, limits, section, model, held_tally)
    elif hold_out:
        train, heldout = split_holdout(train, section.eval_fraction or DEFAULT_EVAL_FRACTION, seed)
        held = Problems(problem_keys(heldout))
    train = _limited(train, section.max_samples, seed, "training", tally)
    if heldout is not None:
        heldout = _limited(_different(heldout, held_tally), num_problems, seed, "held-out", tally)
    counts = tally.counts | held_tally.counts | {"train": len(train), "heldout": len(heldout or ())}
    return Prepared(
        train.remove_columns(KEY),
        None if heldout is None else heldout.remove_columns(KEY),
        (*tally.notes, *held_tally.notes),
        counts,
        tuple(problem_keys(train)),
        held,
    )


def held_out_by(section: DataSection, keys: Sequence[str], seed: int) -> Problems:
    """What a run would hold out: the problems of its `eval_split`, or a fraction of those with these keys.

    Raises:
        DataError: as `load_rows` and `choose_held_out`.
    """
    if section.eval_split is None:
        return Problems(choose_held_out(keys, section.eval_fraction or DEFAULT_EVAL_FRACTION, seed))
    rows = map_columns(load_rows(section, section.eval_split), section, ("prompt",))
    where = f"{place(section)}: column {section.columns.get('prompt', 'prompt')!r}, split {section.eval_split!r}"
    prompts = [to_messages(value, f"{where}, row {row}") for row, value in enumerate(rows["prompt"][:], 1)]
    return Problems(problem_key(prompt) for prompt in prompts if prompt is not None)


def _load(section: DataSection, hold_out: bool, rows: tuple[Rows, Rows] | None) -> tuple[Dataset, Dataset | None]:
    """Training rows, and held-out rows if they come from another split."""
    if rows is not None:
        return from_rows(rows[0]), from_rows(rows[1]) if hold_out else None
    heldout = load_rows(section, section.eval_split) if hold_out and section.eval_split else None
    return load_rows(section, section.split), heldout


def _without_leaks(train: Dataset, heldout: Dataset, tally: Tally) -> Dataset:
    clean = without_leaks(train, Problems(problem_keys(heldout)))
    leaked = len(train) - len(clean)
    tally.count("leaked", leaked)
    if leaked:
        tally.note(f"dropped {plural(leaked, 'training problem')} of {len(train):,} that {_are(leaked)} held out too")
    return clean


def _tell_repeats(problems: Dataset, tally: Tally) -> None:
    """All rows of a repeated problem are trained on: the repetition may be deliberate."""
    repeats = len(problems) - len(set(problem_keys(problems)))
    tally.count("repeated", repeats)
    if repeats:
        tally.note(
            f"{plural(repeats, 'row')} of {len(problems):,} repeat{'s' if repeats == 1 else ''} an earlier problem"
        )


def _different(heldout: Dataset, tally: Tally) -> Dataset:
    """Each problem once: a repeated problem would count twice in intervals that treat problems as independent."""
    kept = first_rows(problem_keys(heldout))
    repeats = len(heldout) - len(kept)
    tally.count("repeated", repeats)
    if not repeats:
        return heldout
    tally.note(
        f"{plural(repeats, 'row')} of {len(heldout):,} repeat{'s' if repeats == 1 else ''} an earlier problem and "
        f"{'is' if repeats == 1 else 'are'} left out"
    )
    return heldout.select(kept)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _measured(train: Dataset, section: DataSection, model: Model, tally: Tally) -> tuple[Dataset, LengthLimit]:
    lengths = _lengths(train["prompt"][:], model)
    limits = length_limit(
        lengths,
        section.max_prompt_length,
        section.max_prompt_length_quantile,
        model.context_length,
        model.max_completion_length,
    )
    return _keep(train, lengths, limits, section, model, tally), limits


def _within(heldout: Dataset, limits: LengthLimit, section: DataSection, model: Model, tally: Tally) -> Dataset:
    """Held-out problems under the limits of the training problems."""
    kept = _keep(heldout, _lengths(heldout["prompt"][:], model), limits, section, model, tally)
    if len(kept) == 0:
        raise DataError(
            f"data.eval_split: all {len(heldout):,} held-out prompts are longer than the training prompts may be",
            hint="raise data.max_prompt_length, or hold out part of the training split: --set data.eval_split=null",
        )
    return kept


def _keep(
    problems: Dataset, lengths: list[int], limits: LengthLimit, section: DataSection, model: Model, tally: Tally
) -> Dataset:
    too_long, no_room = limits.too_long(lengths), limits.no_room(lengths)
    dropped = {*too_long, *no_room}
    kept = [row for row in range(len(lengths)) if row not in dropped]
    tally.count("too_long", len(too_long))
    tally.count("no_room", len(no_room))
    tally.count("longest_prompt", max((lengths[row] for row in kept), default=0))
    if dropped:
        reasons = _reasons(len(too_long), len(no_room), limits, section, model)
        tally.note(f"kept {len(kept):,} of {plural(len(lengths), 'prompt')}: {reasons}")
    return problems.select(kept)


def _reasons(too_long: int, no_room: int, limits: LengthLimit, section: DataSection, model: Model) -> str:
    quantile = section.max_prompt_length_quantile
    source = f"quantile {quantile:g}" if quantile is not None else "data.max_prompt_length"
    why = f"the model's room of {model.context_length:,} less max_completion_length {model.max_completion_length:,}"
    reasons = [
        f"{too_long:,} longer than {limits.stated:,} tokens ({source})" if too_long else "",
        f"{no_room:,} longer than {limits.available:,} tokens ({why})" if no_room else "",
    ]
    return ", ".join(reason for reason in reasons if reason)


def _lengths(prompts: Sequence[Messages], model: Model) -> list[int]:
    try:
        return model.count_tokens(prompts)
    except Exception as error:  # A template may raise anything about one conversation among many.
        for row, prompt in enumerate(prompts, 1):
            _check_renders(row, prompt, model.render)
        raise DataError(f"data: the prompts cannot be tokenized: {error}") from error


def _check_renders(row: int, prompt: Messages, render: Render) -> None:
    try:
        render(prompt)
    except Exception as error:
        raise DataError(
            f"data.chat_template: it cannot render prompt {row}, {excerpt(prompt[-1]['content'])}: {error}",
            hint="remove that row, or use another template: --set data.chat_template=recipe",
        ) from error


def _limited(problems: Dataset, n: int | None, seed: int, which: str, tally: Tally) -> Dataset:
    kept = limit(problems, n, seed)
    if len(kept) < len(problems):
        tally.note(f"using {len(kept):,} of {plural(len(problems), f'{which} problem')}")
    return kept
