"""The model that is trained: base weights with an adapter, fresh or from the warm start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grpo_dist.training.common.backend import is_unsloth
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.load import check_target_modules, load_adapter, load_model, lora_config


def trainable(run: Run, adapter: Path | None = None) -> dict[str, Any]:
    """What TRL's trainers take as `model` and `peft_config`, from the run's backend.

    Raises:
        ModelError: the model cannot be loaded, or has no layer the adapter is for.
    """
    if is_unsloth(run):
        from grpo_dist.training.models.unsloth import load_with_adapter

        return {"model": load_with_adapter(run, adapter), "peft_config": None}
    model = load_model(run)
    check_target_modules(model, run.config.lora)
    if adapter is None:
        return {"model": model, "peft_config": lora_config(run.config.lora)}
    # ZeRO-3 gathers parameters of one dtype only; TRL sees to it for the adapter it makes itself.
    float32 = run.plan.strategy != "zero3"
    return {"model": load_adapter(model, adapter, trainable=True, float32=float32), "peft_config": None}
