"""What holds for every reward function of ours, whatever the model writes."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_dist.config.sections import RewardFunction
from grpo_dist.rewards import REWARD_SETS, REWARDS
from grpo_dist.rewards.builtin import accuracy, soft_overlong_punishment, strict_answer, strict_format
from grpo_dist.rewards.load import load_rewards
from grpo_dist.rewards.preflight.forms import EOS_TOKEN

PIECES = (
    "<end_working_out>",
    "<start_working_out>",
    "<SOLUTION>",
    "</SOLUTION>",
    EOS_TOKEN,
    "34",
    "1,234",
    "50%",
    *" \n\t\0\ud800-.,$0",
    "\\boxed{",
    "\\frac12",
    "}",
    "####",
    "x = ",
    "so",
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=10).map("".join) | st.text(max_size=40)
TRUTHS = st.sampled_from(["34", "0", "1/2", "50%", "", 34, 0.5])
KWARGS = {"soft_overlong_punishment": {"max_completion_length": 20, "soft_punish_cache": 5}}
WELL_FORMED = "I add.<end_working_out><SOLUTION>34</SOLUTION>"


def rewards(name: str, texts: list[str], truths: list[object]) -> list[float | None]:
    """Of a batch, each completion as a conversation; its tokens are its characters."""
    columns = {"answer": truths, "completion_ids": [list(range(len(text))) for text in texts]}
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    prompts = [[{"role": "user", "content": "?"}]] * len(texts)
    (reward,) = load_rewards([RewardFunction(name=name, kwargs=KWARGS.get(name, {}))])
    return reward(prompts=prompts, completions=completions, **columns)


BY_THEIR_ROW = ("code", "reasoning_gym")
"""They read no answer but tests or a task of their row: test_programs.py, test_data_generated.py."""


@pytest.mark.parametrize("name", [name for name in REWARDS if name not in BY_THEIR_ROW])
@settings(max_examples=40, deadline=None)
@given(batch=st.lists(st.tuples(TEXTS, TRUTHS), max_size=5), order=st.randoms(use_true_random=False))
def test_total_finite_deterministic_and_independent_of_order(name: str, batch, order: random.Random):
    texts, truths = [text for text, _ in batch], [truth for _, truth in batch]
    values = rewards(name, texts, truths)
    assert len(values) == len(texts)
    assert all(isinstance(value, float) and math.isfinite(value) for value in values)
    assert rewards(name, texts, truths) == values
    permutation = list(range(len(texts)))
    order.shuffle(permutation)
    permuted = rewards(name, [texts[i] for i in permutation], [truths[i] for i in permutation])
    assert permuted == [values[i] for i in permutation]


@given(TEXTS)
@settings(max_examples=50, deadline=None)
def test_a_plain_string_counts_like_a_conversation(text):
    for name in ("notebook", "strict", "accuracy"):
        for reward in load_rewards([RewardFunction(name=name)]):
            talk = [[{"role": "assistant", "content": text}]]
            assert reward([""], [text], answer=["34"]) == reward([""], talk, answer=["34"])


def test_sets_name_rewards():
    assert {name for members in REWARD_SETS.values() for name in members} <= REWARDS.keys()
    assert not REWARD_SETS.keys() & REWARDS.keys()
    assert all(function.__name__ == name for name, function in REWARDS.items())


@pytest.mark.parametrize(
    "text",
    [
        WELL_FORMED,
        "  I add.\n<end_working_out>\n <SOLUTION> 34 </SOLUTION> \n" + EOS_TOKEN + "\n",
        "<start_working_out>" + WELL_FORMED,
    ],
)
def test_strict_format_pays_for_the_whole_form(text):
    assert strict_format([""], [text]) == [3.0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "34",
        WELL_FORMED + "\njunk",
        WELL_FORMED + " junk",
        WELL_FORMED + EOS_TOKEN * 2,
        WELL_FORMED + "<SOLUTION>35</SOLUTION>",
        WELL_FORMED + "<end_working_out>",
        WELL_FORMED.replace("<SOLUTION>", " so <SOLUTION>"),
        WELL_FORMED.replace("I add.", " "),
        WELL_FORMED.replace("34", "\n"),
        WELL_FORMED.replace("</SOLUTION>", ""),
        "I<start_working_out>" + WELL_FORMED,
        "<start_working_out>" * 2 + WELL_FORMED,
        "<SOLUTION>34</SOLUTION>I add.<end_working_out>",
        "I add.</SOLUTION><end_working_out><SOLUTION>34",
    ],
)
def test_strict_format_pays_for_nothing_less(text):
    assert strict_format([""], [text]) == [0.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WELL_FORMED, 5.0),
        (WELL_FORMED + "\njunk", 5.0),
        ("<SOLUTION>$34.0$</SOLUTION>", 5.0),
        ("<SOLUTION>35</SOLUTION>", -2.0),
        ("<SOLUTION>34 or 35</SOLUTION>", -2.0),
        ("<SOLUTION>34</SOLUTION><SOLUTION>35</SOLUTION>", -2.5),
        ("<SOLUTION> </SOLUTION>", -2.5),
        ("34", -2.5),
    ],
)
def test_strict_answer(text, expected):
    assert strict_answer([""], [text], answer=["34"]) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [(WELL_FORMED, 1.0), (r"so \boxed{34}.", 1.0), ("#### 34", 1.0), ("It is 34.", 1.0), ("34 or 35", 0.0), ("", 0.0)],
)
def test_accuracy(text, expected):
    assert accuracy([""], [text], answer=[34]) == [expected]


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (101, -1.0)]
)
def test_soft_overlong_punishment(tokens, expected):
    kwargs = {"max_completion_length": 100, "soft_punish_cache": 20}
    assert soft_overlong_punishment([""], [""], completion_ids=[[1] * tokens], **kwargs) == [expected]


@pytest.mark.heavy
@pytest.mark.parametrize("cache", [0, 1, 20, 100])
def test_soft_overlong_punishment_equals_trl(cache):
    trl_rewards = pytest.importorskip("trl.rewards")
    theirs = trl_rewards.get_soft_overlong_punishment(100, cache)
    ids = [[1] * length for length in range(130)]
    kwargs = {"max_completion_length": 100, "soft_punish_cache": cache}
    assert soft_overlong_punishment([""] * 130, [""] * 130, completion_ids=ids, **kwargs) == theirs(ids)
