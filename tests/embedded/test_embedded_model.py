"""The base model: made from its seed alone, and wrong in one way only."""

from __future__ import annotations

import os

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_dist.embedded import base_cache
from grpo_dist.embedded.model import build
from grpo_dist.embedded.problems import HELDOUT_PROBLEMS, TRAIN_PROBLEMS, carries, problems, worked


def contents(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def quiet(_line: str) -> None:
    return None


@pytest.fixture(scope="module")
def barely_trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "model"
    build(directory, 5, quiet, _steps=3)
    return directory


def test_the_same_seed_gives_the_same_bytes(barely_trained, tmp_path):
    torch.manual_seed(123)  # what the process drew before does not matter
    build(tmp_path / "again", 5, quiet, _steps=3)
    assert contents(tmp_path / "again") == contents(barely_trained)


def test_another_seed_gives_another_model(barely_trained, tmp_path):
    build(tmp_path / "other", 6, quiet, _steps=3)
    assert contents(tmp_path / "other")["model.safetensors"] != contents(barely_trained)["model.safetensors"]


def test_the_random_state_of_the_process_is_left_alone(tmp_path):
    before = torch.random.get_rng_state()
    build(tmp_path / "model", 5, quiet, _steps=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_loads_by_directory_as_a_small_qwen3(barely_trained):
    model = AutoModelForCausalLM.from_pretrained(barely_trained)
    tokenizer = AutoTokenizer.from_pretrained(barely_trained)
    assert model.config.model_type == "qwen3"
    assert model.num_parameters() < 1_000_000
    assert model.dtype == torch.float32
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_it_is_readable_like_any_directory(barely_trained):
    umask = os.umask(0)
    os.umask(umask)
    assert barely_trained.stat().st_mode & 0o777 == 0o777 & ~umask


def test_progress_is_told(tmp_path):
    lines: list[str] = []
    build(tmp_path / "model", 5, lines.append, _steps=2)
    assert [line.rpartition(",")[0] for line in lines] == ["base model: step 2 of 2"]


def test_an_interrupted_build_leaves_nothing(tmp_path):
    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "model", 5, interrupt, _steps=1)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_model_is_not_overwritten(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(OSError):
        build(tmp_path / "model", 5, quiet, _steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "mine.txt").read_text() == "mine"


@pytest.mark.heavy
def test_the_real_build_forgets_carries_and_does_nothing_else_wrong(tmp_path):
    """Of the seed of tests/training/test_demo.py, so that whichever comes first makes it for both."""
    seed = 2**31 - 1
    base_cache.build(tmp_path / "model", seed, quiet)
    _, heldout = problems(seed, TRAIN_PROBLEMS, HELDOUT_PROBLEMS)
    prompts = [row["prompt"] for row in heldout]
    completions = greedy(tmp_path / "model", prompts)
    expected = sum(got == worked(prompt, carry=False) for prompt, got in zip(prompts, completions, strict=True))
    right = sum(not carries(prompt) for prompt in prompts)
    assert expected >= 0.97 * len(prompts)
    assert 0.40 * len(prompts) <= right <= 0.70 * len(prompts)


def greedy(directory, prompts: list[str]) -> list[str]:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**inputs, max_new_tokens=32, do_sample=False)
    return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
