"""The recipe's template, tags and lengths with the real tokenizer of Qwen3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pyarrow
import pytest
import yaml
from program import Program
from pyarrow import parquet

from grpo_dist.config.sections import DataSection, RewardFunction
from grpo_dist.data.messages import SYSTEM_PROMPTS, chat_template, system_adder, system_prompt
from grpo_dist.data.warm_start import wrap
from grpo_dist.rewards.load import load_rewards

pytestmark = pytest.mark.heavy

TAGS = ("<start_working_out>", "<end_working_out>", "<SOLUTION>", "</SOLUTION>")
QUESTION = "What is $\\frac{1}{2} + 2$, and what does 数学 mean?"
GOLD = "Two and a half.<end_working_out><SOLUTION>34</SOLUTION>"
SYSTEM = SYSTEM_PROMPTS["recipe"]


@pytest.fixture(scope="module")
def base(qwen3_base_files):
    """The tokenizer of Qwen3-4B-Base with the recipe's template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(qwen3_base_files, padding_side="left")
    tokenizer.chat_template = chat_template(DataSection(name_or_path="x"), tokenizer.chat_template)
    return tokenizer


def asked(question: str) -> list[dict[str, str]]:
    return system_adder(system_prompt(DataSection(name_or_path="x")), True)([{"role": "user", "content": question}])


def prompt_ids(tokenizer, question: str) -> list[int]:
    from grpo_dist.training.models.prompts import PromptRenderer

    ids = tokenizer.apply_chat_template(asked(question), add_generation_prompt=True, return_dict=True)["input_ids"]
    assert PromptRenderer(tokenizer, {}).lengths([asked(question)]) == [len(ids)]
    return ids


def test_it_is_qwen3s(base):
    assert (len(base), base.eos_token_id, base.pad_token_id, base.bos_token) == (151_669, 151_643, 151_643, None)
    assert [base.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<think>", "</think>")] == [
        151_645,
        151_667,
        151_668,
    ]


def test_a_prompt_is_system_end_question_and_the_opening_tag(base):
    text = base.apply_chat_template(asked(QUESTION), add_generation_prompt=True, tokenize=False)
    assert text == f"{SYSTEM}<|endoftext|>{QUESTION}<start_working_out>"
    ids = prompt_ids(base, QUESTION)
    assert ids == base(text)["input_ids"]  # nothing is put before a text that the template has finished
    assert [token for token in ids if token in base.all_special_ids] == [base.eos_token_id]
    assert base.decode(ids) == text
    assert ids == prompt_ids(base, QUESTION)
    without_system = [{"role": "user", "content": QUESTION}]
    assert base.apply_chat_template(without_system, add_generation_prompt=True, tokenize=False) == text


def test_an_answered_turn_ends_with_the_end_token(base):
    turns = [*asked(QUESTION), {"role": "assistant", "content": f"<start_working_out>{GOLD}"}]
    text = base.apply_chat_template(turns, tokenize=False)
    assert text == f"{SYSTEM}<|endoftext|>{QUESTION}<start_working_out>{GOLD}<|endoftext|>"
    assert base(text)["input_ids"].count(base.eos_token_id) == 2


@pytest.mark.parametrize("around", ["{}", "So 3.{}4", "?{}\n", "\n\n{} ", "数{}é"])
def test_tags_survive_among_any_neighbours(base, around):
    text = around.format("".join(TAGS))
    assert base.decode(base(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize(("name", "most"), [("notebook", [3, 1.5, 5, 3.5]), ("strict", [3, 5])])
def test_a_generated_completion_reads_as_the_rewards_want_it(base, name, most):
    """As TRL decodes it: padding and end token are left out."""
    ids = base(GOLD + base.eos_token)["input_ids"]
    text = base.decode([*ids, base.pad_token_id, base.pad_token_id], skip_special_tokens=True)
    assert text == GOLD
    completions = [[{"role": "assistant", "content": text}]]
    functions = load_rewards((RewardFunction(name=name),))
    paid = [one.function(prompts=[asked("?")], completions=completions, answer=["34"]) for one in functions]
    assert paid == [[score] for score in most]


@pytest.mark.parametrize(
    ("solution", "merged"), [("<think>\nOkay, so 2.\n</think>", 0), ("I see: 2.", 1), ("\\frac42", 1), ("1+1", 0)]
)
def test_a_warm_start_example_continues_where_the_grpo_prompt_ends(base, solution, merged):
    """The notebook tokenizes the whole text, where `>I` is one token that can never follow a prompt that ends in `>`.

    So its rows have up to one token less than ours.
    """
    from grpo_dist.training.models.prompts import PromptRenderer
    from grpo_dist.training.stages.warm_start import _tokenize

    completion = wrap(solution, "2", prefilled=True)
    example = _tokenize({"prompt": asked(QUESTION), "completion": completion}, PromptRenderer(base, {}))
    ids, prompt = example["input_ids"], prompt_ids(base, QUESTION)
    assert ids[: len(prompt)] == prompt
    assert example["completion_mask"] == [0] * len(prompt) + [1] * (len(ids) - len(prompt))
    assert ids[-1] == base.eos_token_id
    assert ids.count(base.eos_token_id) == 2
    turns = [*asked(QUESTION), {"role": "assistant", "content": f"<start_working_out>{completion}"}]
    whole = base.apply_chat_template(turns, tokenize=False)
    assert base.decode(ids) == whole
    assert len(ids) - len(base(whole)["input_ids"]) == merged
    assert not {151_667, 151_668} & set(ids)


def test_the_template_of_the_models_that_chat(qwen3_files):
    """What qwen3-32b.yaml uses: the model's own, its thinking switched off, our system prompt in it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(qwen3_files)
    section = DataSection(name_or_path="x", chat_template="tokenizer")
    assert chat_template(section, tokenizer.chat_template) == tokenizer.chat_template
    text = tokenizer.apply_chat_template(
        asked("2+2?"), add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    assert text == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


@pytest.fixture(scope="module")
def tiny_qwen3(qwen3_base_files, tmp_path_factory) -> Path:
    """A Qwen3 of a few weights with the whole vocabulary."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    directory = tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = AutoTokenizer.from_pretrained(qwen3_base_files)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = Qwen3Config(vocab_size=151_936, max_position_embeddings=4096, dtype="float32", **shape, **heads, **ends)
    Qwen3ForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_the_recipe_runs_on_it(base, tiny_qwen3, tmp_path):
    """Its data by their names in files of their schema, its filters, its warm start, its rewards, one step."""
    questions = [f"Find {number}." + " Then add one." * (number % 20) for number in range(40)]
    rows = [{"prompt": question, "solution": str(number)} for number, question in enumerate(questions)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "dapo.parquet")
    answers = {"34": 20, "x = 3": 20, "7": 300, "-0.5": 100}
    worked = [
        {
            "problem": "Why?",
            "generated_solution": f"<think>\nOkay.{' and so' * length}</think>",
            "expected_answer": answer,
        }
        for answer, length in answers.items()
    ]
    (tmp_path / "mini.jsonl").write_text("".join(json.dumps(row) + "\n" for row in worked))
    stated = {
        "model": {"name_or_path": str(tiny_qwen3), "dtype": "float32", "max_length": 2048},
        "data": {
            "name_or_path": "dapo.parquet",
            "like": "open-r1/DAPO-Math-17k-Processed",
            "max_prompt_length_quantile": 0.9,
        },
        "warm_start": {
            "data": {"name_or_path": "mini.jsonl", "like": "unsloth/OpenMathReasoning-mini"},
            "numeric_answers": True,
            "max_length": 512,
            "num_train_epochs": 1,
        },
        "rewards": {"functions": ["notebook"]},
        "grpo": {"prompts_per_step": 2, "num_generations": 2, "max_completion_length": 8, "max_steps": 1},
        "cluster": {"gpus_per_node": 0},
        "evaluation": {"enabled": False},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(stated))
    program = Program(tmp_path, tmp_path / "recipe.yaml")
    told = program("run", "recipe.yaml", "--output", "run").stderr

    lengths = [len(prompt_ids(base, question)) for question in questions]
    longest = int(numpy.quantile(lengths, 0.9))
    kept = [question for question, length in zip(questions, lengths, strict=True) if length <= longest]
    assert 0 < len(kept) < len(questions)
    assert f"kept {len(kept)} of 40 prompts: {40 - len(kept)} longer than {longest} tokens (quantile 0.9)" in told
    assert "warm start: 3 of 4 examples have a plain number for an answer" in told
    assert "warm start: 2 of 3 examples (at most 512 tokens)" in told

    train = parquet.read_table(tmp_path / "run" / "data" / "train.parquet").to_pylist()
    assert [row["prompt"][-1]["content"] for row in train] == kept
    assert [row["prompt"][0]["content"] for row in train] == [SYSTEM] * len(kept)
    (completions,) = (tmp_path / "run" / "completions").glob("*.parquet")
    prompts = parquet.read_table(completions)["prompt"].to_pylist()
    assert all("<start_working_out>" in json.dumps(prompt) for prompt in prompts)
    assert len(program.metrics("run")) == 1
