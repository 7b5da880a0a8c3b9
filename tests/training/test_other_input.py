"""A user's own model and data, by configuration alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml
from program import SETTINGS, Program

pytestmark = pytest.mark.heavy

NO_SYSTEM_ROLE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ message['role'] }}] {{ message['content'] }}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A random Llama of the smallest size with a byte-level tokenizer, whose template refuses system messages."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("llama") / "a model's directory"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["Tom has apples. How many apples are there?"] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = NO_SYSTEM_ROLE
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=640,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def word_problems(path: Path, count: int) -> Path:
    rng = random.Random(5)
    with open(path, "w") as handle:
        for _ in range(count):
            a, b = rng.randint(2, 60), rng.randint(2, 60)
            question = f"Tom has {a} apples and finds {b} more. How many apples are there?"
            solution = f"{a} + {b} = {a + b} #### {a + b}"
            handle.write(json.dumps({"question": question, "solution": solution, "source": "made"}) + "\n")
        handle.write(json.dumps({"question": "long " * 300, "solution": "#### 1", "source": "made"}) + "\n")
    return path


def test_another_architecture_and_data_need_only_a_configuration(tmp_path, llama):
    data = word_problems(tmp_path / "word problems.jsonl", 80)
    config = tmp_path / "mine.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "model": {"name_or_path": str(llama), "dtype": "bfloat16"},
                "lora": {"target_modules": "all-linear"},
                "data": {
                    "name_or_path": str(data),
                    "columns": {"prompt": "question", "answer": "solution"},
                    "answer_extractor": "gsm8k",
                    "chat_template": "tokenizer",
                    "eval_fraction": 0.2,
                },
                "rewards": {"functions": ["strict", {"name": "accuracy", "weight": 2.0}]},
                "grpo": {**SETTINGS["grpo"], "max_steps": 2, "max_completion_length": 16},
                "cluster": {"gpus_per_node": 0},
                "evaluation": {"num_problems": 10, "num_samples": 2},
            }
        )
    )
    program = Program(tmp_path, config)
    result = program("run", str(config))
    assert "no system role" in result.stderr
    assert "kept 80 of 81 prompts" in result.stderr
    run = tmp_path / "runs" / "mine"
    figures = program.report("runs/mine")
    assert figures["steps"] == 2
    assert figures["problems"] == 10
    compared = json.loads((run / "comparison.json").read_text())
    assert compared["per_problem"][0]["answer"].isdigit()
    adapted = json.loads((run / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert {name.rpartition(".")[2] for name in adapted} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_a_warm_start_teaches_the_format_before_the_first_step(program):
    from grpo_dist.embedded.problems import problems, worked

    rows, _ = problems(99, 64, 1)
    examples = program.cwd / "examples.jsonl"
    with open(examples, "w") as handle:
        for row in rows:
            reasoning, answer = worked(row["prompt"], carry=True).split("<end_working_out><SOLUTION>")
            answer = answer.removesuffix("</SOLUTION>")
            line = {"problem": row["prompt"], "reasoning": f"<think>{reasoning}</think>", "answer": answer}
            handle.write(json.dumps(line) + "\n")
    document = yaml.safe_load(program.config.read_text())
    document["warm_start"] = {
        "data": {"name_or_path": str(examples), "columns": {"prompt": "problem"}},
        "per_device_train_batch_size": 16,
        "num_train_epochs": 2,
        "learning_rate": 2e-3,
    }
    document["grpo"]["max_steps"] = 2
    program.config.write_text(yaml.safe_dump(document))
    result = program("run", str(program.config), "--set", "evaluation.enabled=false", "--output", "warm")
    assert "warm start: 64 of 64 examples" in result.stderr
    run = program.cwd / "warm"
    started, trained = (run / name / "adapter_model.safetensors" for name in ("warm_start", "adapter"))
    assert started.read_bytes() != trained.read_bytes()
    assert program.report("warm")["steps"] == 2


def test_a_generator_of_problems_needs_only_its_name(program):
    document = yaml.safe_load(program.config.read_text())
    document["data"] = {
        "name_or_path": "reasoning_gym/chain_sum",
        "generator": {"size": 24, "max_terms": 2, "max_digits": 1},
    }
    document.pop("rewards", None)
    document["grpo"] |= {"max_steps": 1, "prompts_per_step": 2, "max_completion_length": 24}
    document["evaluation"] = {"num_problems": 4, "num_samples": 2}
    program.config.write_text(yaml.safe_dump(document))
    result = program("run", str(program.config), "--output", "made")
    assert "has left" not in result.stderr
    [step] = [json.loads(line) for line in (program.cwd / "made" / "metrics.jsonl").read_text().splitlines()]
    assert step["tasks/chain_sum"] == pytest.approx(step["rewards/reasoning_gym/mean"])
    compared = json.loads((program.cwd / "made" / "comparison.json").read_text())
    assert compared["scorer"] == "reasoning_gym"
    assert compared["trained"]["mean_score"]["estimate"] >= compared["trained"]["mean_at_k"]["estimate"]


def test_layers_the_model_does_not_have_are_named_before_anything_starts(program):
    result = program("run", str(program.config), "--set", "lora.target_modules=[c_attn]", code=2)
    assert "lora.target_modules: a qwen3 layer has no linear layer named c_attn" in result.stderr
    assert not (program.cwd / "runs").exists()


def test_target_layers_of_an_unknown_model_are_checked_against_it(embedded_model):
    from transformers import AutoModelForCausalLM

    from grpo_dist.config.sections import LoraSection
    from grpo_dist.errors import ModelError
    from grpo_dist.training.models.load import check_target_modules

    model = AutoModelForCausalLM.from_pretrained(embedded_model)
    check_target_modules(model, LoraSection())
    with pytest.raises(ModelError, match="Qwen3ForCausalLM has no linear layer named c_attn; it has down_proj"):
        check_target_modules(model, LoraSection(target_modules=("c_attn",)))


def test_a_model_that_is_not_there_is_one_clear_error(program):
    result = program("run", str(program.config), "--set", "model.name_or_path=./nowhere", code=1)
    assert "model.name_or_path" in result.stderr
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.stderr
