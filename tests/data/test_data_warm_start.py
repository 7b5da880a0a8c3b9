"""Examples of the supervised warm start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo_dist.config.sections import WarmStartSection
from grpo_dist.data.columns import Tally
from grpo_dist.data.identity import Problems, problem_key
from grpo_dist.data.messages import system_adder
from grpo_dist.data.warm_start import warm_start_examples
from grpo_dist.errors import DataError

OPEN_MATH = {"problem": "2+2?", "generated_solution": "<think>\nTwo and two.\n</think>\n", "expected_answer": 4}
NONE = Problems()
COLUMNS = {"prompt": "problem", "reasoning": "generated_solution", "answer": "expected_answer"}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def examples(*rows, prefilled=True, numeric_answers=False, tally=None, held=NONE, **stated):
    Path("warm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = WarmStartSection(data={"name_or_path": "warm.jsonl", **stated}, numeric_answers=numeric_answers)
    return warm_start_examples(section, system_adder("S", True), tally or Tally(), prefilled=prefilled, held=held)


def test_reasoning_and_answer_are_wrapped():
    (example,) = examples(OPEN_MATH, columns=COLUMNS)
    assert example == {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "2+2?"}],
        "completion": "Two and two.<end_working_out><SOLUTION>4</SOLUTION>",
    }
    (example,) = examples(OPEN_MATH, columns=COLUMNS, prefilled=False)
    assert example["completion"] == "<start_working_out>Two and two.<end_working_out><SOLUTION>4</SOLUTION>"


def test_completions_are_used_as_they_are():
    rows = [{"prompt": "2+2?", "completion": " <think>4</think> ", "answer": "4"}]
    assert [example["completion"] for example in examples(*rows)] == [" <think>4</think> "]
    (example,) = examples({"prompt": "2+2?", "output": "4"}, columns={"completion": "output"})
    assert example["completion"] == "4"


def test_what_is_missing():
    with pytest.raises(DataError, match=r"warm_start\.data\.columns: warm\.jsonl has no column 'reasoning', 'answer'"):
        examples({"prompt": "2+2?"})
    with pytest.raises(DataError, match="column 'expected_answer', row 2: empty, and so are 1 row after it"):
        examples(
            OPEN_MATH, OPEN_MATH | {"expected_answer": None}, OPEN_MATH | {"expected_answer": None}, columns=COLUMNS
        )
    with pytest.raises(DataError, match=r"column 'completion', row 1: text is expected, this is '\[1\]'"):
        examples({"prompt": "2+2?", "completion": [1]})


def test_examples_of_problems_that_are_held_out_are_left_out():
    rows = [
        OPEN_MATH | {"problem": text} for text in ("2+2?", " 2 + 2? ", "<|im_start|>user\n2+2?<|im_end|>\n", "3+3?")
    ]
    held = Problems([problem_key([{"role": "system", "content": "T"}, {"role": "user", "content": "2+2?"}])])
    tally = Tally("warm start")
    (kept,) = examples(*rows, columns=COLUMNS, held=held, tally=tally)
    assert kept["prompt"][-1]["content"] == "3+3?"
    assert tally.notes == ["warm start: left out 3 examples of 4: their problems are held out"]
    with pytest.raises(DataError, match="problems of all 3 examples are held out"):
        examples(*rows[:3], columns=COLUMNS, held=held)


def test_a_conversation_is_prompt_and_completion():
    said = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
    columns = {"prompt": "conversations", "completion": "conversations.-1.value"}
    (example,) = examples({"conversations": said}, columns=columns)
    assert (example["prompt"][1:], example["completion"]) == ([{"role": "user", "content": "2+2?"}], "4")
