"""Which problems are held out of training; equal prompts never stand on both sides."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grpo_dist.data.identity import Problems, problem_keys
from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def split_holdout(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, held-out): `fraction` of the different problems, at least one, is held out.

    The choice depends on the seed and the prompts alone, so neither the order of rows nor other columns change it.

    Raises:
        DataError: fewer than two different problems.
    """
    keys = problem_keys(dataset)
    heldout = choose(keys, fraction, seed)
    return (
        dataset.select([row for row, key in enumerate(keys) if key not in heldout]),
        dataset.select([row for row, key in enumerate(keys) if key in heldout]),
    )


def choose(keys: Sequence[str], fraction: float, seed: int) -> set[str]:
    """The keys among these that are held out.

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
