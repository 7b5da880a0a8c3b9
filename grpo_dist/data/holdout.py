"""Which problems are held out of training; equal prompts never stand on both sides."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING

from grpo_dist.data.messages import Messages
from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def problem_key(prompt: Messages) -> str:
    """What makes two prompts the same problem: roles and words, whatever the white space and the system prompt."""
    spoken = [(message["role"], message["content"].split()) for message in prompt if message["role"] != "system"]
    return json.dumps(spoken)


def split_holdout(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, held-out): `fraction` of the different problems, at least one, is held out.

    The choice depends on the seed and the prompts alone, so neither the order of rows nor other columns change it.

    Raises:
        DataError: fewer than two different problems.
    """
    keys = [problem_key(prompt) for prompt in dataset["prompt"][:]]
    ranked = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    if len(ranked) < 2:
        raise DataError(
            f"data: {len(keys)} rows with 1 problem cannot be divided into training and held-out problems",
            hint="--set data.eval_split=NAME, or --set evaluation.enabled=false",
        )
    amount = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
    heldout = set(ranked[:amount])
    return (
        dataset.select([row for row, key in enumerate(keys) if key not in heldout]),
        dataset.select([row for row, key in enumerate(keys) if key in heldout]),
    )


def without_leaks(train: Dataset, heldout: Dataset) -> Dataset:
    """The training rows whose problem is not held out.

    Raises:
        DataError: none is left.
    """
    held = {problem_key(prompt) for prompt in heldout["prompt"][:]}
    kept = [row for row, prompt in enumerate(train["prompt"][:]) if problem_key(prompt) not in held]
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
