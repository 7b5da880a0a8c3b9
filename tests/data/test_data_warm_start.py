"""Examples of the supervised warm start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo_dist.config.model import WarmStartSection
from grpo_dist.data.messages import dresser
from grpo_dist.data.tally import Tally
from grpo_dist.data.warm_start import warm_start_examples
from grpo_dist.errors import DataError

OPEN_MATH = {"problem": "2+2?", "generated_solution": "<think>\nTwo and two.\n</think>\n", "expected_answer": 4}
COLUMNS = {"prompt": "problem", "reasoning": "generated_solution", "answer": "expected_answer"}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def examples(*rows, prefilled=True, numeric_answers=False, tally=None, **stated):
    Path("warm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = WarmStartSection(data={"name_or_path": "warm.jsonl", **stated}, numeric_answers=numeric_answers)
    return warm_start_examples(section, dresser("S", True), tally or Tally(), prefilled=prefilled)


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
