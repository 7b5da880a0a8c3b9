"""Held-out problems: a partition, decided by seed and prompts alone, without a leak."""

from __future__ import annotations

import random

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_dist.data.holdout import limit, problem_key, split_holdout, without_leaks
from grpo_dist.errors import DataError

TEXTS = st.lists(st.sampled_from([f"{a}+{b}" for a in range(6) for b in range(6)]), min_size=2, max_size=40)


def prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "S"}, {"role": "user", "content": text}]


def dataset(texts) -> Dataset:
    return Dataset.from_dict({"prompt": [prompt(text) for text in texts], "row": list(range(len(texts)))})


def questions(part: Dataset) -> list[str]:
    return [messages[-1]["content"] for messages in part["prompt"][:]]


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.floats(0.01, 0.99), st.integers(0, 2**31), st.randoms())
def test_partition_without_leak(texts, fraction, seed, rng: random.Random):
    if len(set(texts)) < 2:
        with pytest.raises(DataError, match="with 1 problem cannot be divided"):
            split_holdout(dataset(texts), fraction, seed)
        return
    train, heldout = split_holdout(dataset(texts), fraction, seed)
    assert sorted(train["row"][:] + heldout["row"][:]) == list(range(len(texts)))
    assert train["row"][:] == sorted(train["row"][:])
    assert not set(questions(train)) & set(questions(heldout))
    distinct = len(set(texts))
    assert len(set(questions(heldout))) == min(max(1, round(fraction * distinct)), distinct - 1)
    shuffled = rng.sample(texts, len(texts))
    other = dataset(shuffled).remove_columns("row").add_column("first", ["x"] * len(texts))
    assert set(questions(split_holdout(other, fraction, seed)[1])) == set(questions(heldout))


def test_the_seed_decides():
    texts = [str(number) for number in range(100)]
    chosen = {tuple(questions(split_holdout(dataset(texts), 0.1, seed)[1])) for seed in range(10)}
    assert len(chosen) == 10
    assert questions(split_holdout(dataset(texts), 0.1, 3)[1]) == questions(split_holdout(dataset(texts), 0.1, 3)[1])


def test_equal_problems():
    assert problem_key(prompt("a  b\n")) == problem_key(prompt("a b")[1:])
    assert problem_key(prompt("a b")) != problem_key(prompt("ab"))


def test_leaks_are_removed_from_training():
    train, heldout = dataset(["a", "b", "a ", "c"]), dataset(["a", "d"])
    assert questions(without_leaks(train, heldout)) == ["b", "c"]
    with pytest.raises(DataError, match="all 4 training problems are held out too"):
        without_leaks(train, dataset(["a", "b", "c"]))


def test_limit():
    rows = dataset([str(number) for number in range(50)])
    some = limit(rows, 10, 7)["row"][:]
    assert some == sorted(some)
    assert some == limit(rows, 10, 7)["row"][:] != limit(rows, 10, 8)["row"][:]
    assert len(set(some)) == 10
    assert limit(rows, None, 7) is limit(rows, 50, 7) is rows
