"""RunConfig and LaunchPlan → TRL's `GRPOConfig`."""

from __future__ import annotations

from typing import Any

from trl import GRPOConfig

from grpo_dist.run.metrics import PROJECT
from grpo_dist.training.common.process import Run
from grpo_dist.training.common.unsloth_arguments import build


def grpo_arguments(run: Run, reward_weights: list[float]) -> GRPOConfig:
    """Every field the user set under `grpo:`, and those the plan determines."""
    config, plan = run.config, run.plan
    return build(
        GRPOConfig,
        **{"project": PROJECT, **config.grpo.trl_fields(), "save_steps": plan.save_steps},
        **_batch(run),
        **_vllm(run),
        **precision(config.model.dtype),
        reward_weights=reward_weights,
        output_dir=str(run.directory.path),
        run_name=run.directory.path.name,
        report_to=list(config.tracking) or "none",
        save_strategy="steps",
        use_cpu=plan.topology.on_cpu,
        ddp_find_unused_parameters=False if plan.topology.num_processes > 1 else None,
        log_completions=True,
        num_completions_to_print=0,
        disable_tqdm=True,
    )


def precision(dtype: str) -> dict[str, bool]:
    """Autocast follows the dtype of the weights; TRL would enable bf16 by default, even for float32 weights."""
    return {"bf16": dtype == "bfloat16", "fp16": dtype == "float16"}


def _batch(run: Run) -> dict[str, Any]:
    batch = run.plan.batch
    return {
        "per_device_train_batch_size": batch.per_device_train_batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
        "steps_per_generation": batch.steps_per_generation,
    }


def _vllm(run: Run) -> dict[str, Any]:
    plan, rollout = run.plan, run.config.rollout
    if not plan.uses_vllm:
        return {}
    return {
        "use_vllm": True,
        "vllm_mode": plan.topology.mode,
        "vllm_max_model_length": plan.max_model_len,
        "vllm_tensor_parallel_size": plan.topology.tensor_parallel_size,
        "vllm_gpu_memory_utilization": plan.gpu_memory_utilization or 0.3,
        "vllm_enable_sleep_mode": rollout.enable_sleep_mode,
    }
