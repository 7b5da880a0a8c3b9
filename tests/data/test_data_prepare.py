"""The whole way from a stated source to the problems of a run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from grpo_dist.config.sections import DataSection
from grpo_dist.data.prepare import Model, prepare
from grpo_dist.errors import DataError


def render(messages) -> str:
    return "".join(f"<{message['role']}>{message['content']}" for message in messages)


def render_without_system(messages) -> str:
    if messages[0]["role"] == "system":
        raise ValueError("System role not supported")
    return render(messages)


def words(prompts) -> list[int]:
    return [len(prompt[-1]["content"].split()) for prompt in prompts]


MODEL = Model(render=render, count_tokens=words, context_length=100, max_completion_length=50)


def question(number: int, length: int = 3) -> dict[str, object]:
    return {"prompt": f"q{number}" + " x" * (length - 1), "answer": number, "level": number % 3}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_rows(name: str, rows) -> None:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write_rows


def prepared(model=MODEL, *, rows=None, hold_out=True, num_problems=None, seed=3407, **stated):
    section = DataSection(**{"name_or_path": "train.jsonl", "system_prompt": "S"} | stated)
    return prepare(
        section, model, seed=seed, need_answers=True, hold_out=hold_out, num_problems=num_problems, rows=rows
    )


def test_fraction_of_the_training_split(write):
    write("train.jsonl", [question(number) for number in range(200)])
    problems = prepared(num_problems=4)
    assert problems.train.column_names == problems.heldout.column_names == ["prompt", "answer", "level"]
    assert problems.heldout[0]["prompt"][0] == {"role": "system", "content": "S"}
    assert (len(problems.train), len(problems.heldout)) == (190, 4)
    assert problems.notes == ("using 4 of 10 held-out problems",)
    assert problems.counts == {
        "loaded": 200,
        "empty_prompts": 0,
        "unread_answers": 0,
        "repeated": 0,
        "too_long": 0,
        "no_room": 0,
        "longest_prompt": 3,
        "heldout_repeated": 0,
        "train": 190,
        "heldout": 4,
    }


def test_same_seed_same_problems(write):
    write("train.jsonl", [question(number) for number in range(100)])
    first, again, other = (prepared(seed=seed, max_samples=20, eval_fraction=0.2) for seed in (1, 1, 2))
    assert first.train.to_list() == again.train.to_list() != other.train.to_list()
    assert first.heldout.to_list() == again.heldout.to_list() != other.heldout.to_list()
    assert len(first.train) == 20
    assert "using 20 of 80 training problems" in first.notes


def test_limits_are_counted_and_explained(write):
    lengths = [3] * 90 + [20] * 5 + [60] * 5
    write("train.jsonl", [question(number, length) for number, length in enumerate(lengths)])
    quantile = prepared(max_prompt_length_quantile=0.9, hold_out=False)
    assert quantile.notes == ("kept 90 of 100 prompts: 10 longer than 4 tokens (quantile 0.9)",)
    assert quantile.heldout is None
    room = prepared(hold_out=False)
    why = "the model's room of 100 less max_completion_length 50"
    assert room.notes == (f"kept 95 of 100 prompts: 5 longer than 50 tokens ({why})",)
    assert (room.counts["no_room"], room.counts["longest_prompt"]) == (5, 20)
    both = prepared(max_prompt_length=10, hold_out=False)
    assert both.notes == ("kept 90 of 100 prompts: 10 longer than 10 tokens (data.max_prompt_length)",)


def test_eval_split_leaks_and_limits(write):
    write("train.jsonl", [question(number) for number in range(20)])
    write("test.jsonl", [question(number) for number in (5, 6, 20, 21)] + [question(22, 60)])
    problems = prepared(name_or_path=".", eval_split="test")
    assert problems.notes == (
        "dropped 2 training problems of 20 that are held out too",
        "held-out: kept 4 of 5 prompts: 1 longer than 50 tokens "
        "(the model's room of 100 less max_completion_length 50)",
    )
    assert sorted(problems.heldout["answer"][:]) == ["20", "21", "5", "6"]
    assert (problems.counts["leaked"], problems.counts["heldout_no_room"], problems.counts["train"]) == (2, 1, 18)


def test_eval_split_without_a_short_prompt(write):
    write("train.jsonl", [question(number) for number in range(20)])
    write("test.jsonl", [question(99, 60)])
    with pytest.raises(DataError, match="all 1 held-out prompts are longer than the training prompts may be"):
        prepared(name_or_path=".", eval_split="test")


def test_a_template_without_a_system_role(write):
    write("train.jsonl", [question(1), question(2)])
    problems = prepared(Model(render_without_system, words, 100, 50))
    assert problems.notes[0].startswith("the chat template has no system role")
    assert problems.heldout[0]["prompt"][0]["content"].startswith("S\n\nq")


def test_repeated_rows_are_counted_and_asked_once(write):
    write("train.jsonl", [question(number % 10) for number in range(30)])
    problems = prepared(eval_fraction=0.2)
    assert problems.notes == (
        "20 rows of 30 repeat an earlier problem",
        "held-out: 4 rows of 6 repeat an earlier problem and are left out",
    )
    assert (len(problems.train), len(problems.heldout)) == (24, 2)
    assert (problems.counts["repeated"], problems.counts["heldout_repeated"]) == (20, 4)


def test_all_that_is_held_out_is_known(write):
    """Also what is too long to be compared on, or one too many."""
    write("train.jsonl", [question(number) for number in range(40)])
    problems = prepared(eval_fraction=0.5, num_problems=3)
    assert (len(problems.held), len(problems.heldout), len(problems.train)) == (20, 3, 20)
    assert not problems.held.rows_among(problems.keys)
    write("test.jsonl", [question(5), question(99), question(98, 60)])
    split = prepared(name_or_path=".", eval_split="test", num_problems=1)
    assert (len(split.held), len(split.heldout), split.counts["leaked"]) == (3, 1, 1)


def test_embedded_rows():
    rows = ([question(1), question(2)], [question(3)])
    problems = prepared(name_or_path="embedded", rows=rows)
    assert (problems.train["answer"][:], problems.heldout["answer"][:]) == (["1", "2"], ["3"])
    assert prepared(name_or_path="embedded", rows=rows, hold_out=False).heldout is None


def test_a_prompt_that_the_template_refuses(write):
    def refuse(messages) -> str:
        if "q1" in messages[-1]["content"]:
            raise ValueError("no q1 here")
        return render(messages)

    write("train.jsonl", [question(0), question(1)])
    with pytest.raises(DataError, match=r"it cannot render prompt 2, 'q1 x x': no q1 here"):
        prepared(Model(refuse, lambda prompts: [len(refuse(prompt)) for prompt in prompts], 100, 50))


def test_what_is_prepared_survives_parquet(write, tmp_path):
    from datasets import Dataset

    write("train.jsonl", [question(number) for number in range(10)])
    train = prepared().train
    train.to_parquet(tmp_path / "out.parquet")
    assert Dataset.from_parquet(str(tmp_path / "out.parquet"), keep_in_memory=True).to_list() == train.to_list()


def test_the_room_imports_no_machine_learning():
    code = """
import pkgutil, sys
import grpo_dist.data
for found in pkgutil.iter_modules(grpo_dist.data.__path__):
    __import__("grpo_dist.data." + found.name)
print(*sorted({"torch", "trl", "transformers", "datasets", "numpy", "pyarrow", "huggingface_hub"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
