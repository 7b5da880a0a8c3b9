"""The recipe's rewards against the notebook's own source and its reference values."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grpo_dist.errors import RewardError
from grpo_dist.rewards import REWARD_SETS, REWARDS
from grpo_dist.rewards.builtin import (
    check_answer,
    check_numbers,
    find_number,
    find_solution,
    match_format_approximately,
    match_format_exactly,
)
from grpo_dist.rewards.preflight.forms import EOS_TOKEN

WORKED = "I add them.<end_working_out>"
PIECES = (
    "<end_working_out>",
    "<SOLUTION>",
    "</SOLUTION>",
    "<start_working_out>",
    EOS_TOKEN,
    "<|endof",
    *" \n\r\t\x0b\x1c\x85\u2028\u00a0",
    *"07.,-_+eE\u0663\uff17x<>/",
    "34",
    "nan",
    "inf",
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
EOS_TOKENS = st.sampled_from([EOS_TOKEN, "", " ", "\n", " x", "x ", "\nx", "</s>", "<SOLUTION>", "</SOLUTION>", " \t "])


def reference_format(eos_token: str = EOS_TOKEN) -> re.Pattern[str]:
    solution_end = r"</SOLUTION>[\s]{0,}" + "(?:" + re.escape(eos_token) + ")?"
    return re.compile(rf"<end_working_out>.*?<SOLUTION>(.+?){solution_end}[\s]{{0,}}$", flags=re.MULTILINE | re.DOTALL)


REFERENCE_NUMBER = re.compile(r"<SOLUTION>.*?[\s]{0,}([-]?[\d\.\,]{1,})", flags=re.MULTILINE | re.DOTALL)


def reference_check_answer(text: str, truth: str) -> float:
    match = reference_format().search(text)
    if match is None:
        return -2.0
    guess = match.group(1)
    if guess == truth:
        return 5.0
    if guess.strip() == truth.strip():
        return 3.5
    try:
        ratio = float(guess) / float(truth)
        if ratio >= 0.9 and ratio <= 1.1:
            return 2.0
        return 1.5 if ratio >= 0.8 and ratio <= 1.2 else -2.5
    except Exception:
        return -4.5


def reference_check_numbers(text: str, truth: str) -> float:
    match = REFERENCE_NUMBER.search(text)
    if match is None:
        return -2.5
    try:
        return 3.5 if float(match.group(1).strip().replace(",", "")) == float(truth.strip()) else -1.5
    except Exception:
        return 0.0


def group(match: re.Match[str] | None) -> str | None:
    return None if match is None else match.group(1)


def total(text: str, truth: object) -> float:
    completion = [[{"role": "assistant", "content": text}]]
    return sum(
        REWARDS[name](prompts=[""], completions=completion, answer=[truth])[0] for name in REWARD_SETS["notebook"]
    )


@pytest.mark.parametrize(
    ("text", "truth", "expected"),
    [
        (WORKED + "<SOLUTION>34</SOLUTION>", "34", 13.0),
        (WORKED + "<SOLUTION>  34 </SOLUTION>", "34", 11.5),
        (WORKED + "<SOLUTION>34.</SOLUTION>", "34", 10.0),
        (WORKED + "<SOLUTION>35</SOLUTION>", "34", 5.0),
        (WORKED + "<SOLUTION>The answer is 34.</SOLUTION>", "34", 3.5),
        (WORKED + "<SOLUTION>1,234</SOLUTION>", "1234", 3.5),
        (WORKED + "<SOLUTION>99</SOLUTION>", "34", 0.5),
        (WORKED + r"<SOLUTION>\frac{1}{2}</SOLUTION>", "34", -1.5),
        (WORKED, "34", -6.0),
        ("34", "34", -7.5),
        (WORKED + "<SOLUTION>0</SOLUTION>", "0", 13.0),
        (WORKED + "<SOLUTION>5</SOLUTION>", "0", -1.5),
        (WORKED + "<SOLUTION>34</SOLUTION>\njunk", "34", 13.0),
        (WORKED + "<SOLUTION>34</SOLUTION> junk", "34", 3.0),
        (WORKED + "<SOLUTION>34</SOLUTION>" + EOS_TOKEN, "34", 13.0),
    ],
)
def test_reference_totals(text, truth, expected):
    assert total(text, truth) == expected


@pytest.mark.parametrize(
    ("solution", "truth", "answer", "numbers"),
    [
        ("1_0", "10", 2.0, -1.5),  # float() reads underscores; the number ends at it
        ("9" * 5000, "9" * 5000 + "0", -2.5, 3.5),  # both inf: their ratio is nan
        ("nan", "34", -2.5, -2.5),
        ("inf", "34", -2.5, -2.5),
        ("34", "", -4.5, 0.0),
        ("34", "nan", -2.5, -1.5),
        ("٣", "3", 2.0, 3.5),
        ("1.2.3", "1", -4.5, 0.0),
    ],
)
def test_numbers_that_surprise(solution, truth, answer, numbers):
    text = f"{WORKED}<SOLUTION>{solution}</SOLUTION>"
    assert check_answer([""], [text], answer=[truth]) == [answer]
    assert check_numbers([""], [text], answer=[truth]) == [numbers]


def test_number_answers_are_converted_to_text():
    assert total(WORKED + "<SOLUTION>34</SOLUTION>", 34) == 13.0
    assert total(WORKED + "<SOLUTION>34.0</SOLUTION>", 34.0) == 13.0


def test_missing_answer_is_an_error():
    with pytest.raises(RewardError, match="no right answer"):
        check_answer([""], ["34"], answer=[None])


def test_eos_token_is_what_it_is_told():
    text = WORKED + "<SOLUTION>34</SOLUTION></s>"
    assert match_format_exactly([""], [text]) == [0.0]
    assert match_format_exactly([""], [text], eos_token="</s>") == [3.0]
    assert check_answer([""], [text], answer=["34"], eos_token="</s>") == [5.0]


@settings(max_examples=500, deadline=None)
@given(text=TEXTS, eos_token=EOS_TOKENS)
@example(text="<end_working_out><SOLUTION></SOLUTION></SOLUTION>", eos_token=EOS_TOKEN)
@example(text="<end_working_out><SOLUTION>x</SOLUTION> \r \nx</SOLUTION>", eos_token=EOS_TOKEN)
@example(text="<end_working_out><SOLUTION>1</SOLUTION>  xx", eos_token=" x")
def test_solution_equals_the_expression(text, eos_token):
    assert find_solution(text, eos_token) == group(reference_format(eos_token).search(text))


@settings(max_examples=500, deadline=None)
@given(
    parts=st.tuples(TEXTS, TEXTS, TEXTS), tail=st.lists(st.sampled_from([*" \n\r\x0b\u2028x", EOS_TOKEN]), max_size=6)
)
def test_solution_equals_the_expression_near_a_match(parts, tail):
    before, between, inside = parts
    text = f"{before}<end_working_out>{between}<SOLUTION>{inside}</SOLUTION>{''.join(tail)}"
    assert find_solution(text, EOS_TOKEN) == group(reference_format().search(text))


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, head=st.sampled_from(["", "<SOLUTION>"]))
def test_number_equals_the_expression(text, head):
    assert find_number(head + text) == group(REFERENCE_NUMBER.search(head + text))


@settings(max_examples=400, deadline=None)
@given(inside=TEXTS, truth=st.sampled_from(["34", "0", "1_0", "", "nan", "inf", " 34\n", "٣", "-7", "1e400", "7e-1"]))
def test_rewards_equal_the_source(inside, truth):
    text = f"{WORKED}<SOLUTION>{inside}</SOLUTION>"
    assert check_answer([""], [text], answer=[truth]) == [reference_check_answer(text, truth)]
    assert check_numbers([""], [text], answer=[truth]) == [reference_check_numbers(text, truth)]


@pytest.mark.parametrize(
    "hostile",
    [
        "<end_working_out>" * 60_000,
        "<end_working_out>" + "<SOLUTION>" * 100_000,
        "<end_working_out><SOLUTION>" + "</SOLUTION>" * 100_000,
        "<end_working_out><SOLUTION>x" + "</SOLUTION> x" * 80_000,
        "<end_working_out><SOLUTION>x</SOLUTION>" + " " * 1_000_000 + "x",
        "<end_working_out><SOLUTION>x</SOLUTION>" + (" " * 1000 + "</SOLUTION>") * 1000 + "x",
        "<SOLUTION>" + " " * 1_000_000,
        "<SOLUTION>" + "-" * 1_000_000,
        "<end_working_out><SOLUTION>" + "9" * 1_000_000 + "</SOLUTION>",
        "<SOLUTION>" * 100_000 + "\x0b" * 100_000,
    ],
    ids=range(10),
)
@pytest.mark.timeout(60)
def test_hostile_text_takes_linear_time(hostile):
    assert -7.5 <= total(hostile, "34") <= 13.0


def test_tags_are_counted_in_any_order():
    assert match_format_approximately([""], ["</SOLUTION><SOLUTION>"]) == [0.0]
    assert match_format_approximately([""], ["<SOLUTION><SOLUTION>"]) == [-3.0]
