"""Held-out problems: a partition, decided by seed and prompts alone, without a leak."""

from __future__ import annotations

import random

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_dist.data.identity import Problems, first_rows, normalised, problem_key, problem_keys
from grpo_dist.data.prepare import limit, split_holdout, without_leaks
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


QUESTION = "What is 0 + 1, and why?"


@pytest.mark.parametrize(
    "other",
    [
        "what IS 0+1 , and why?",
        "What\u00a0is 0\u2009+\u20091,\nand why\uff1f",
        "\uff37hat is $0 + 1$, and why?\u200b",
        r"What is \( 0+1 \), and why?",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat is 0 + 1, and why?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday.<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nWhat is 0 + 1, and why?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<bos><start_of_turn>user\nWhat is 0 + 1, and why?<end_of_turn>\n<start_of_turn>model\n",
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nWhat is 0 + 1, and why? [/INST]",
        "<\uff5cbegin\u2581of\u2581sentence\uff5c><\uff5cUser\uff5c>What is 0 + 1, and why?"
        "<\uff5cAssistant\uff5c><think>\n",
        "What is 0 + 1, and why?<start_working_out>",
        "Question: What is 0 + 1, and why?\nAnswer:",
    ],
)
def test_a_problem_is_known_in_another_form(other):
    assert problem_key(prompt(other)) == problem_key(prompt(QUESTION)[1:])


@pytest.mark.parametrize(
    ("one", "other"),
    [("2\u00b2", "22"), ("x_1", "x1"), ("a b", "ab"), ("-1", "1"), ("1/2", "12"), ("cafe", "caf\u00e9"), ("0.1", "01")],
)
def test_other_problems_stay_other_ones(one, other):
    assert normalised(one) != normalised(other)


def test_a_conversation_that_leads_to_a_problem_is_that_problem():
    led = [*prompt("1+1?"), {"role": "assistant", "content": "2"}, {"role": "user", "content": "2+2?"}]
    other = [*prompt("3+3?"), {"role": "assistant", "content": "6"}, {"role": "user", "content": "2+2?"}]
    assert problem_key(led) in Problems([problem_key(prompt("2+2?"))])
    assert problem_key(prompt("2+2?")) in Problems([problem_key(led)])
    assert problem_key(other) not in Problems([problem_key(led)])  # a common last line makes no problem
    assert first_rows(["b", "a", "b", "c", "a"]) == [0, 1, 3]


def test_leaks_are_removed_from_training():
    train, heldout = dataset(["a", "b", "A ", "c"]), dataset(["a", "d"])
    assert questions(without_leaks(train, Problems(problem_keys(heldout)))) == ["b", "c"]
    with pytest.raises(DataError, match="all 4 training problems are held out too"):
        without_leaks(train, Problems(problem_keys(dataset(["a", "b", "c"]))))


def test_limit():
    rows = dataset([str(number) for number in range(50)])
    some = limit(rows, 10, 7)["row"][:]
    assert some == sorted(some)
    assert some == limit(rows, 10, 7)["row"][:] != limit(rows, 10, 8)["row"][:]
    assert len(set(some)) == 10
    assert limit(rows, None, 7) is limit(rows, 50, 7) is rows
