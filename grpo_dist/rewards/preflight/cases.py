"""Completions of known quality: the right answer in its form, and the ways in which models corrupt it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from grpo_dist.rewards.latex import plain
from grpo_dist.rewards.preflight.forms import WORKING, Form
from grpo_dist.rewards.quantity import parse_quantity

GOLD, GOLD_OTHER_OPENING, WRONG = "gold", "gold, other opening", "wrong"
WRONG_AGAIN = "wrong, once more"
GOLD_WORDS_AS_OPENING = "gold, words for the tag"
SWAPPED = "gold, told otherwise"
UNTAGGED, UNCLOSED, JUNK, HEDGED = "untagged", "unclosed", "junk after", "hedged"
TRUNCATED, EMPTY, REPEATED, SAMPLED = "truncated", "empty", "repeated", "sampled"

NO_ANSWER_AT_ALL = "something else"
WORDS = 3
"""Number of answers to other problems that are tried if an answer is not a number."""

WHAT = {
    GOLD: "the right answer, in the form the rewards ask for",
    GOLD_OTHER_OPENING: "the same, with the opening tag where it does not belong, or without it where it does",
    GOLD_WORDS_AS_OPENING: "the same, with words as long as the opening tag in its place: who likes these likes length",
    SWAPPED: "the same completions, while the functions are told that other answers are right",
    WRONG: "the same form, another answer",
    WRONG_AGAIN: "the same, where a wrong answer was paid as gold is: a problem may have several right ones",
    UNTAGGED: "malformed: the right answer in plain words",
    UNCLOSED: "malformed: cut just before the form is complete",
    JUNK: "malformed: the right answer, then more text on a new line",
    HEDGED: "a wrong answer and the right one, both in the form",
    TRUNCATED: "cut in the middle of the working-out",
    EMPTY: "nothing at all",
    REPEATED: "one phrase and the tags, over and over, up to the longest completion",
    SAMPLED: "what the model writes before it is trained",
}

WORSE = (TRUNCATED, EMPTY, REPEATED)
"""Cases without any answer, which may never be paid more than gold."""


@dataclass(frozen=True)
class Case:
    """Completions of one kind."""

    name: str
    completions: tuple[str, ...]
    problems: tuple[int, ...]
    """For each completion the index of the problem it answers."""
    answers: tuple[Any, ...] = ()
    """The reference answers passed to the functions; () for the real ones."""


def gold_cases(form: Form, answers: Sequence[str], *, prefilled: bool, told: Sequence[Any] = ()) -> list[Case]:
    """Right and wrong answers to all problems; if the form has an opening tag, also right ones with it misplaced.

    Args:
        told: false values for the column of reference answers, of its own type; the wrong answers if not given.
    """
    others = wrong_answers(answers)
    gold = _case(GOLD, [form.write(answer, opened=prefilled) for answer in answers])
    cases = [
        gold,
        replace(gold, name=SWAPPED, answers=tuple(told or others)),
        _case(WRONG, [form.write(answer, opened=prefilled) for answer in others]),
    ]
    if form.opening:
        words = (WORKING * len(form.opening))[: len(form.opening)]
        cases.append(_case(GOLD_OTHER_OPENING, [form.write(answer, opened=not prefilled) for answer in answers]))
        cases.append(_case(GOLD_WORDS_AS_OPENING, [words + form.write(answer, opened=True) for answer in answers]))
    return cases


def more_wrong(form: Form, answers: Sequence[str], rows: Sequence[int], *, prefilled: bool) -> Case:
    """Several more answers to these problems, each very unlikely to be right."""
    pairs = [(row, other) for row in rows for other in _others(answers[row], answers, row)[1:]]
    written = tuple(form.write(other, opened=prefilled) for _, other in pairs)
    return Case(WRONG_AGAIN, written, tuple(row for row, _ in pairs))


def spoilt_cases(form: Form, answers: Sequence[str], *, prefilled: bool, repetitions: int) -> list[Case]:
    """The other cases, of which each has one completion per problem."""
    gold = [form.write(answer, opened=prefilled) for answer in answers]
    wrong = [form.write(answer, opened=prefilled) for answer in wrong_answers(answers)]
    phrase = f"{WORKING} {' '.join(form.tags())} "
    return [
        _case(UNTAGGED, [f"{WORKING} The answer is {answer}." for answer in answers]),
        _case(UNCLOSED, [text[: -max(1, len(_last_tag(form)))] for text in gold]),
        _case(JUNK, [f"{text}\nWait, let me check this again. {WORKING}" for text in gold]),
        _case(HEDGED, [f"{bad}\n{good}" for bad, good in zip(wrong, gold, strict=True)]),
        _case(TRUNCATED, [WORKING[: len(WORKING) // 2]] * len(gold)),
        _case(EMPTY, [""] * len(gold)),
        _case(REPEATED, [phrase * repetitions] * len(gold)),
    ]


def wrong_answers(answers: Sequence[str]) -> list[str]:
    """A wrong answer for each answer: another number, else the answer to another problem."""
    return [_others(answer, answers, place)[0] for place, answer in enumerate(answers)]


def _others(answer: str, answers: Sequence[str], place: int) -> list[str]:
    """Several wrong answers; for a number, larger and smaller ones, and one that is even and not prime."""
    quantity = parse_quantity(plain(answer))
    if quantity is None:
        later = dict.fromkeys(other for other in (*answers[place + 1 :], *answers[:place]) if other != answer)
        return [*list(later)[:WORDS], NO_ANSWER_AT_ALL]
    # Further from zero than twice the answer, so that a reward for being near does not pay.
    value, sign = quantity.value, 1 if quantity.value >= 0 else -1
    return [_written(2 * value + 7 * sign), _written(-3 * value - 10 * sign), _written(4 * value + 8 * sign)]


def _written(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else str(float(value))


def _last_tag(form: Form) -> str:
    tags = form.tags()
    return tags[-1] if tags and form.body.endswith(tags[-1]) else ""


def _case(name: str, completions: Sequence[str]) -> Case:
    return Case(name, tuple(completions), tuple(range(len(completions))))
