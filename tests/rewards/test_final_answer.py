"""Where the final answer is found."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_dist.rewards.builtin import accuracy
from grpo_dist.rewards.extract import FINDERS, final_answer, last_boxed, last_solution, only_solution
from grpo_dist.rewards.preflight.forms import FORMS

COMPLETIONS = [json.loads(line) for line in Path(__file__).with_name("completions.jsonl").open(encoding="utf-8")]
"""Whole completions, of which some name several answers: `{"completion", "truth", "right"}`."""


def test_many_whole_completions_are_kept():
    assert len(COMPLETIONS) >= 270
    assert len({(one["completion"], one["truth"]) for one in COMPLETIONS}) == len(COMPLETIONS)


@pytest.mark.skipif(importlib.util.find_spec("mpmath") is None, reason="mpmath is not installed")
@pytest.mark.parametrize("right", [True, False])
def test_whole_completions_are_judged_as_stated(right):
    these = [one for one in COMPLETIONS if one["right"] == right]
    paid = accuracy([], [one["completion"] for one in these], answer=[one["truth"] for one in these])
    assert [one for one, reward in zip(these, paid, strict=True) if reward != right] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<SOLUTION>1</SOLUTION> or <SOLUTION>2</SOLUTION>", "1, 2"),
        ("<SOLUTION>1</SOLUTION> No, wait: <SOLUTION>2</SOLUTION>", "2"),
        ("<SOLUTION>1</SOLUTION> or <SOLUTION>2", "1"),
        ("<SOLUTION>1<SOLUTION>2</SOLUTION>3</SOLUTION>", "2"),
        (r"<SOLUTION>1</SOLUTION> \boxed{2} #### 3", "1"),
        ("<SOLUTION></SOLUTION> 7", ""),
        (r"\boxed{1} so \boxed{\frac{1}{2}} #### 3", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("so\n#### 42\nNext question", "42"),
        ("#### 1\n#### 2", "1, 2"),
        ("#### Step 1: add\nIt makes 2.", "2"),
        ("## 1 and then 2", "2"),
        ("it is 1,234.5.", "1,234.5"),
        ("10-3", "10-3"),
        ("it is -3", "-3"),
        ("\u22123", "\u22123"),
        ("about 50%", "50%"),
        ("a half, 1/2", "1/2"),
        ("1.5e3 m", "1.5e3 m"),
        ("nothing", "nothing"),
        ("nothing of which I could say that it is right", None),
        ("<think>so</think><answer>\n7\n</answer> 8", "7"),
        (r"<answer>1</answer> Hence <answer>\frac{1}{2}</answer> \boxed{3}", r"\frac{1}{2}"),
        ("<answer> </answer> 7", "7"),
        ("I add.\n```\n42\n```\n", "42"),
        ("```python\nprint(3)\n```\nThe answer is 5.", "5"),
        ("I add 2 and 3. The answer is 5 because 2 + 3 = 5.", "5"),
        ("**Answer:** 3.5 cm\n\nCheck: 7/2", "3.5 cm"),
        ("Final answer: (3, 4).", "(3, 4)"),
        ("The answer is yes", "yes"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("(3, 4)", "(3, 4)"),
        ("2x + 1", "2x + 1"),
        ("True", "True"),
        (r"<think>\boxed{42}</think> It is 41.", "41"),
        (r"<think>\boxed{42}</think>", "42"),
        ("Thus the answer is\n\\[\n\\frac{3}{4}\n\\]", r"\frac{3}{4}"),
        ("So the answer is\n$$5$$", "$$5$$"),
        ("The answer is 42<|im_end|>", "42"),
        (r"The length is $2\sqrt{3}$.", r"2\sqrt{3}"),
        ("It costs $5, with tax $6.", "$6"),
        ("", None),
    ],
)
def test_final_answer(text, expected):
    assert final_answer(text) == expected


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
@pytest.mark.parametrize("answer", ["34", "-7", "1,234", "1/2", "50%"])
@pytest.mark.parametrize("opened", [False, True])
def test_every_form_of_the_preflight_is_read(form, answer, opened):
    assert final_answer(form.write(answer, opened=opened)) == answer


def test_every_form_has_a_mark_that_is_looked_for():
    assert {form.mark for form in FORMS} == FINDERS.keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a<SOLUTION>1</SOLUTION>b", "1"),
        ("<SOLUTION>1</SOLUTION><SOLUTION>1</SOLUTION>", None),
        ("</SOLUTION>1<SOLUTION>", None),
        ("<SOLUTION> \n</SOLUTION>", None),
        ("<SOLUTION>1", None),
    ],
)
def test_only_solution(text, expected):
    assert only_solution(text) == expected


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([r"\boxed{", r"\boxed", "{", "}", "\\", "x", "<SOLUTION>", "</SOLUTION>"]), max_size=12
    ).map("".join)
)
def test_found_text_has_its_marks_around_it(text):
    boxed, solution = last_boxed(text), last_solution(text)
    assert boxed is None or all(one in text for one in boxed.split(", "))
    assert solution is None or all(one in text for one in solution.split(", "))


@pytest.mark.parametrize(
    "unit",
    [
        r"\boxed{",
        r"\boxed ",
        "{",
        "}",
        "\\",
        "####",
        "####\n",
        "1,",
        "1.",
        "-",
        "</SOLUTION>",
        "<SOLUTION>",
        "1/",
        "1e",
        "<answer>",
        "</answer>",
        "```",
        "```\n",
        "answer is ",
        "the answer: 1. ",
        "\\text{",
        "$",
        "A, ",
        "answer to ",
    ],
)
@pytest.mark.timeout(60)
def test_hostile_text_takes_linear_time(unit):
    text = unit * (300_000 // len(unit))
    for find in (only_solution, *FINDERS.values(), final_answer):
        found = find(text)
        assert found is None or found.split(", ")[-1] in text
