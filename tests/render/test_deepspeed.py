from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import LAYOUTS, layout, planned

from grpo_dist.config import RunConfig
from grpo_dist.render import render_files
from grpo_dist.render.accelerate import HIDDEN_SIZE_IF_UNKNOWN, deepspeed_json

SHARDED = [name for name, settings in LAYOUTS.items() if settings.get("strategy", "").startswith("zero")]
WORKER = Path(__file__).with_name("deepspeed_steps.py")


def rendered(name: str) -> dict:
    return json.loads(deepspeed_json(*layout(name)))


def test_only_zero_has_a_deepspeed_file():
    assert {name for name in LAYOUTS if "deepspeed.json" in render_files(*layout(name))} == set(SHARDED)


@pytest.mark.parametrize("name", SHARDED)
def test_nothing_is_left_for_another_program_to_fill_in(name):
    config, plan = layout(name)
    assert '"auto"' not in deepspeed_json(config, plan)
    found = rendered(name)
    assert found["train_micro_batch_size_per_gpu"] == plan.batch.per_device_train_batch_size
    assert found["gradient_accumulation_steps"] == plan.batch.gradient_accumulation_steps
    assert found["zero_optimization"]["stage"] == int(plan.strategy[-1])


def test_precision_is_the_models():
    def precision(name: str) -> tuple[bool, bool]:
        return rendered(name)["bf16"]["enabled"], rendered(name)["fp16"]["enabled"]

    assert precision("zero2, 2 nodes") == (True, False)
    assert precision("zero3, float16") == (False, True)
    assert precision("zero3 on CPU") == (False, False)


def test_bucket_sizes_follow_the_model_where_it_is_known():
    assert rendered("zero3, 16 nodes")["zero_optimization"]["stage3_param_persistence_threshold"] == 10 * 2560
    config, plan = layout("zero3, 16 nodes")
    unknown = config.model_copy(update={"model": config.model.model_copy(update={"name_or_path": "someone/something"})})
    sizes = json.loads(deepspeed_json(unknown, plan))["zero_optimization"]
    assert sizes["stage3_param_persistence_threshold"] == 10 * HIDDEN_SIZE_IF_UNKNOWN


@pytest.mark.heavy
@settings(max_examples=60)
@given(
    nodes=st.integers(1, 16),
    stage=st.integers(1, 3),
    dtype=st.sampled_from(["bfloat16", "float16", "float32"]),
    norm=st.floats(0, 10),
    prompts=st.integers(1, 64),
)
def test_deepspeed_reads_what_is_meant(nodes, stage, dtype, norm, prompts):
    from deepspeed.runtime.config import DeepSpeedConfig

    grpo = {
        "prompts_per_step": 8 * nodes * prompts,
        "num_generations": 8,
        "max_completion_length": 64,
        "max_grad_norm": norm,
    }
    rollout = {"backend": "vllm", "mode": "colocate"}
    config, plan = planned(nodes=nodes, strategy=f"zero{stage}", model={"dtype": dtype}, grpo=grpo, rollout=rollout)
    found = DeepSpeedConfig(json.loads(deepspeed_json(config, plan)))
    assert found.zero_config.stage == stage
    assert found.train_micro_batch_size_per_gpu == plan.batch.per_device_train_batch_size
    assert found.gradient_accumulation_steps == plan.batch.gradient_accumulation_steps
    assert found.gradient_clipping == norm
    assert found.bfloat16_config.enabled is (dtype == "bfloat16")
    assert found.float16_config.enabled is (dtype == "float16")


@pytest.mark.heavy
def test_transformers_finds_nothing_to_correct():
    """It fills in `auto` and collects every value that differs from its own arguments."""
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    for name in SHARDED:
        config, plan = layout(name)
        arguments = as_training_arguments(config, plan)
        found = HfTrainerDeepSpeedConfig(json.loads(deepspeed_json(config, plan)))
        found.trainer_config_process(arguments)
        found.trainer_config_finalize(arguments, model=None, num_training_steps=10)
        assert found.mismatches == []


def as_training_arguments(config: RunConfig, plan) -> SimpleNamespace:
    """The arguments DeepSpeed's settings are held against, as the training process makes them."""
    return SimpleNamespace(
        world_size=plan.batch.num_processes,
        per_device_train_batch_size=plan.batch.per_device_train_batch_size,
        gradient_accumulation_steps=plan.batch.gradient_accumulation_steps,
        max_grad_norm=config.grpo.max_grad_norm,
        learning_rate=config.grpo.learning_rate,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=config.grpo.weight_decay,
        save_on_each_node=False,
        fp16=config.model.dtype == "float16",
        fp16_full_eval=False,
        bf16=config.model.dtype == "bfloat16",
        bf16_full_eval=False,
        get_warmup_steps=lambda steps: 0,
    )


@pytest.mark.heavy
def test_deepspeed_initializes_with_every_file_and_steps(tmp_path):
    files = []
    for name in SHARDED:
        if "float16" not in name:  # DeepSpeed has no float16 on CPU
            files.append(tmp_path / f"{name}.json")
            files[-1].write_text(deepspeed_json(*layout(name)))
    process = subprocess.run(
        [sys.executable, str(WORKER), *map(str, files)], capture_output=True, text=True, timeout=500
    )
    assert process.returncode == 0, process.stderr[-3000:]
    outcomes = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('{"file"')]
    assert [Path(outcome["file"]) for outcome in outcomes] == files
    for outcome in outcomes:
        assert outcome["steps"] == 2
        assert outcome["losses"][-1] < outcome["losses"][0]
