"""The reward for problems that a generator of reasoning-gym made: the generator's own score of the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from grpo_dist.config.generators import INSTALL
from grpo_dist.errors import RewardError
from grpo_dist.rewards.extract import final_answer, tagged_answer
from grpo_dist.rewards.preflight.forms import texts
from grpo_dist.rewards.symbolic import Judge

TIMEOUT_S = 2.0
"""Processor time of grading one answer."""
PATIENCE_S = 300.0
"""A batch may take this long, and as many seconds more as it has answers, before its worker counts as stuck."""

_judge = Judge(Path(__file__).with_name("task_worker.py"), "reasoning-gym", INSTALL)


def reasoning_gym(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    task: Sequence[str],
    entry: Sequence[str],
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """The generator's own score of the final answer, from 0.0 to 1.0, with partial credit; 0.0 without an answer.

    The answer is what stands between the tags `<SOLUTION>` or `<answer>`, as it is written there; several different
    ones are no answer. Without tags it is what `accuracy` would take. The mean of each generator is logged as
    `tasks/NAME`.
    """
    answers = [_answer(text) for text in texts(completions)]
    graded = iter(scores([(one, answer) for one, answer in zip(entry, answers, strict=True) if answer]))
    paid = [next(graded) if answer else 0.0 for answer in answers]
    if log_metric is not None:
        _log(task, paid, log_metric)
    return list(paid)


def _answer(text: str) -> str | None:
    tagged = tagged_answer(text)
    return final_answer(text) if tagged is None else tagged


def scores(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The score of each (entry, answer).

    Raises:
        RewardError: reasoning-gym is not installed, or an entry is not one that this version can use.
    """
    if not pairs:
        return []
    entries = {entry: place for place, entry in enumerate(dict.fromkeys(entry for entry, _ in pairs))}
    request = {
        "entries": list(entries),
        "answers": [[entries[entry], answer] for entry, answer in pairs],
        "timeout_s": TIMEOUT_S,
    }
    reply = _judge.ask(request, PATIENCE_S + len(pairs))
    if reply is None:
        return [0.0] * len(pairs)
    if "error" in reply:
        raise RewardError(
            f"reward 'reasoning_gym': a problem cannot be graded: {reply['error']}",
            hint="the column entry has to come from data.name_or_path: reasoning_gym/NAME and the same reasoning-gym",
        )
    return reply["scores"]


def _log(task: Sequence[str], paid: Sequence[float], log_metric: Callable[[str, float], None]) -> None:
    by_task = defaultdict(list)
    for name, score in zip(task, paid, strict=True):
        by_task[name].append(score)
    for name, own in by_task.items():
        log_metric(f"tasks/{name}", fmean(own))
