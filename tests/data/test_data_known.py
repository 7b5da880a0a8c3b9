"""Known data sets, each from a local file with the columns and the forms of values that its rows have on the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from grpo_dist.config import load_config
from grpo_dist.config.known_data import KNOWN_DATA
from grpo_dist.config.sections import DataSection, SourceSection, WarmStartSection
from grpo_dist.data.columns import Tally
from grpo_dist.data.filtered import settings_for
from grpo_dist.data.identity import Problems
from grpo_dist.data.messages import system_adder
from grpo_dist.data.prepare import Model, Prepared, prepare
from grpo_dist.data.text import is_plain_number
from grpo_dist.data.warm_start import warm_start_examples
from grpo_dist.errors import ConfigError, DataError

DAPO, MINI, GSM8K = "open-r1/DAPO-Math-17k-Processed", "unsloth/OpenMathReasoning-mini", "openai/gsm8k"
MATH, MATH_BY_SUBJECT, MATH_500 = (
    "DigitalLearningGmbH/MATH-lighteval",
    "EleutherAI/hendrycks_math",
    "HuggingFaceH4/MATH-500",
)


def dapo(number: int) -> dict:
    question = f"Find the number of positive integers up to {number}."
    return {
        "prompt": question,
        "solution": str(number),
        "data_source": "math_dapo",
        "source_prompt": [{"content": f"Solve the following math problem step by step. … {question}", "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": str(number), "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": f"9a9b6eb4-{number}"},
    }


def gsm8k(number: int) -> dict:
    thousands = 1000 * number
    return {
        "question": f"Natalia sold {number} clips to each of 1,000 friends. How many altogether?",
        "answer": f"She sold {number}*1000 = <<{number}*1000={thousands}>>{thousands} clips.\n#### {thousands:,}",
    }


def math(number: int) -> dict:
    forms = (rf"$\boxed{{\frac{{{number}}}{{7}}}}$.", rf"$\boxed {number}$.", rf"\[\fbox{{{number}}}\]")
    return {
        "problem": rf"What is $\frac{{{number}}}{{7}}$, once more?",
        "level": "Level 5",
        "type": "Algebra",
        "solution": rf"First $\boxed{{0}}$, and then {forms[number % 3]}",
    }


def math_500(number: int) -> dict:
    row = math(number)
    return {
        "problem": row["problem"],
        "solution": row["solution"],
        "answer": rf"\left( {number}, \frac{{\pi}}{{2}} \right)",
        "subject": "Precalculus",
        "level": 2,
        "unique_id": f"test/precalculus/{number}.json",
    }


def mini(number: int, answer: str, solution: str | None = None) -> dict:
    return {
        "expected_answer": answer,
        "problem_type": "has_answer_extracted",
        "problem_source": "aops_c4_high_school_math",
        "generation_model": "DeepSeek-R1",
        "pass_rate_72b_tir": "n/a",
        "problem": f"Problem {number}.",
        "generated_solution": solution or f"<think>\nOkay, {number}.\n</think>To solve it.\n\\boxed{{{answer}}}",
        "inference_mode": "cot",
    }


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list[dict]) -> str:
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), name)
    else:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def words(prompts) -> list[int]:
    return [len(prompt[-1]["content"].split()) for prompt in prompts]


def prepared(**stated) -> Prepared:
    model = Model(lambda messages: str(messages), words, context_length=100, max_completion_length=50)
    return prepare(DataSection(**stated), model, seed=0, need_answers=True, hold_out=False)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
@pytest.mark.parametrize(
    ("like", "make", "answer", "kept"),
    [
        (DAPO, dapo, "3", ["data_source", "source_prompt", "ability", "reward_model", "extra_info"]),
        (GSM8K, gsm8k, "3000", []),
        (MATH, math, r"\frac{3}{7}", ["level", "type"]),
        (MATH_BY_SUBJECT, math, r"\frac{3}{7}", ["level", "type"]),
        (MATH_500, math_500, r"\left( 3, \frac{\pi}{2} \right)", ["solution", "subject", "level", "unique_id"]),
    ],
    ids=[DAPO, GSM8K, MATH, MATH_BY_SUBJECT, MATH_500],
)
def test_problems_of_a_copy(name, like, make, answer, kept):
    rows = [make(number) for number in range(1, 6)]
    train = prepared(name_or_path=write(name, rows), like=like).train
    question = rows[2].get("problem") or rows[2].get("question") or rows[2]["prompt"]
    assert len(train) == 5
    assert train[2]["prompt"][-1] == {"role": "user", "content": question}
    assert train[2]["prompt"][0]["role"] == "system"
    assert train[2]["answer"] == answer
    assert set(train.column_names) == {"prompt", "answer", *kept}


def test_all_three_ways_in_which_math_boxes():
    train = prepared(name_or_path=write("math.jsonl", [math(n) for n in range(3)]), like=MATH).train
    assert train["answer"][:] == [r"\frac{0}{7}", "1", "2"]


def warm_examples(rows: list[dict], tally: Tally | None = None, **stated) -> list[dict]:
    section = WarmStartSection(data={"name_or_path": write("warm.parquet", rows), "like": MINI}, **stated)
    return warm_start_examples(section, system_adder("S", True), tally or Tally(), prefilled=True, held=Problems())


def test_warm_start_of_a_copy():
    (example,) = warm_examples([mini(1, "34", "<think>\nOkay.\n</think>So **34**.\n")])
    assert example["prompt"][-1]["content"] == "Problem 1."
    assert example["completion"] == "Okay.\nSo **34**.<end_working_out><SOLUTION>34</SOLUTION>"


def test_numeric_answers_alone():
    answers = ["34", "x = 3", r"\frac{1}{2}", "-0.5", "1,234", "", None, "2e3"]
    rows = [mini(number, answer) for number, answer in enumerate(answers)]
    rows[1]["generated_solution"] = None  # of no consequence: it is left out
    tally = Tally("warm start")
    found = warm_examples(rows, tally, numeric_answers=True)
    assert [example["prompt"][-1]["content"] for example in found] == ["Problem 0.", "Problem 3.", "Problem 7."]
    assert tally.notes == ["warm start: 3 of 8 examples have a plain number for an answer"]


def test_numeric_answers_where_there_are_none_or_a_row_lacks_a_part():
    with pytest.raises(DataError) as raised:
        warm_examples([mini(1, "x = 3"), mini(2, "1/2")], numeric_answers=True)
    assert str(raised.value) == (
        "warm_start.numeric_answers: none of the 2 answers in column 'expected_answer' is a plain number, the first is "
        "'x = 3'\n  → --set warm_start.numeric_answers=false"
    )
    empty = mini(2, "2") | {"generated_solution": " "}
    with pytest.raises(DataError, match="column 'generated_solution', row 3: empty"):
        warm_examples([mini(1, "pi"), mini(1, "1"), empty], numeric_answers=True)


def test_numeric_answers_of_whole_completions():
    rows = [{"prompt": "p", "completion": "c", "answer": "x"}, {"prompt": "q", "completion": "d", "answer": 2}]
    section = WarmStartSection(data={"name_or_path": write("w.jsonl", rows)}, numeric_answers=True)
    (example,) = warm_start_examples(section, system_adder(None, True), Tally(), prefilled=True, held=Problems())
    assert (example["prompt"][0]["content"], example["completion"]) == ("q", "d")


@given(st.from_regex(r"[-+ ]{0,2}[0-9.,eE/x]{0,6} ?", fullmatch=True) | st.floats().map(str) | st.integers().map(str))
def test_a_plain_number_is_what_pandas_takes_for_one(text):
    """The recipe keeps what `pandas.to_numeric` reads, and no answer there is an infinity."""
    if "inf" not in text:
        read = pandas.to_numeric(pandas.Series([text], dtype=object), errors="coerce")
        assert is_plain_number(text) == bool(read.notnull()[0])


class TestNamedByTheirId:
    def test_what_is_filled_in(self):
        stated = {name: DataSection(name_or_path=name) for name in KNOWN_DATA}
        found = {
            name: (section.config, section.split, section.eval_split, section.answer_extractor, section.columns)
            for name, section in stated.items()
        }
        solved = {"prompt": "problem", "answer": "solution"}
        programs = {"prompt": "problem_statement", "answer": "gold_standard_solution"}
        worked = {"prompt": "problem", "reasoning": "generated_solution", "answer": "expected_answer"}
        assert found == {
            DAPO: ("en", "train", None, "none", {"answer": "solution"}),
            MINI: (None, "cot", None, "none", worked),
            GSM8K: ("main", "train", "test", "gsm8k", {"prompt": "question"}),
            MATH: (None, "train", "test", "boxed", solved),
            MATH_BY_SUBJECT: (None, "train", "test", "boxed", solved),
            MATH_500: (None, "test", None, "none", {"prompt": "problem"}),
            "google-research-datasets/mbpp": ("full", "train", "test", "none", {"prompt": "text", "answer": "code"}),
            "openai/openai_humaneval": (None, "test", None, "none", {"prompt": "prompt"}),
            "open-r1/verifiable-coding-problems-python": (None, "train", None, "none", programs),
            "agentica-org/DeepCoder-Preview-Dataset": ("primeintellect", "train", None, "none", {"prompt": "problem"}),
        }

    def test_what_is_stated_counts(self):
        stated = {"config": "socratic", "columns": {"answer": "question", "text": "answer"}, "answer_extractor": "none"}
        section = DataSection(name_or_path=GSM8K, eval_fraction=0.1, **stated)
        assert (section.config, section.eval_split, section.answer_extractor) == ("socratic", None, "none")
        assert section.columns == {"prompt": "question", "answer": "question", "text": "answer"}
        for split in ("test", "test[:100]", "train+test"):
            assert DataSection(name_or_path=GSM8K, split=split).eval_split is None

    def test_a_copy_has_splits_of_its_own(self):
        copy = DataSection(name_or_path="school/sums", like=GSM8K)
        assert (copy.config, copy.split, copy.eval_split) == (None, "train", None)
        assert (copy.columns, copy.answer_extractor) == ({"prompt": "question"}, "gsm8k")
        assert SourceSection(name_or_path="warm.jsonl", like=MINI).split == "train"

    def test_a_filtered_file_stays_like_its_source(self):
        settings = settings_for(DataSection(name_or_path=GSM8K), Path("band.jsonl"))
        assert settings == [
            "data.name_or_path=band.jsonl",
            f"data.like={GSM8K}",
            "data.config=null",
            "data.eval_split=null",
        ]
        Path("own.yaml").write_text(f"model: {{name_or_path: m}}\ndata: {{name_or_path: {GSM8K}}}")
        data = load_config("own.yaml", settings).data
        assert (data.columns, data.answer_extractor, data.config) == ({"prompt": "question"}, "gsm8k", None)

    def test_a_name_that_is_not_known(self):
        Path("own.yaml").write_text("model: {name_or_path: m}\ndata: {name_or_path: x.jsonl, like: openai/gsm9k}")
        with pytest.raises(
            ConfigError, match=r"own\.yaml:2: data\.like: must be one of .*; did you mean openai/gsm8k\?"
        ):
            load_config("own.yaml")
