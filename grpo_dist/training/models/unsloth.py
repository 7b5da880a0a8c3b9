"""Loading the model that is trained, base weights with a new or warm-started adapter, in the way its backend needs.

Only to be imported where Unsloth is the backend: the import rewrites TRL, and loads vLLM.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from unsloth import FastLanguageModel

from grpo_dist.masking import from_environment
from grpo_dist.plan.memory.vllm import served_rank
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.load import (
    check_target_modules,
    context_length,
    explained,
    model_path,
    origin,
)


def load_with_adapter(run: Run, adapter: Path | None) -> PeftModel:
    """The base model of the run with a new adapter, or with the weights of a saved one.

    Raises:
        ModelError: as `load_model` and `check_target_modules`.
    """
    section, lora = run.config.model, run.config.lora
    checkpointing = "unsloth" if run.config.grpo.gradient_checkpointing else False
    with explained(section):
        model, _ = FastLanguageModel.from_pretrained(
            model_path(run),
            max_seq_length=run.plan.max_model_len or context_length(run),
            dtype=getattr(torch, section.dtype),
            load_in_4bit=False,
            use_exact_model_name=True,  # not Unsloth's copy under another name
            use_gradient_checkpointing=checkpointing,
            random_state=run.config.grpo.seed,
            **_attention(run),
            **_engine(run),
            **origin(section),
            **from_environment(section.model_init_kwargs, "model.model_init_kwargs"),
        )
    check_target_modules(model, lora)
    model = FastLanguageModel.get_peft_model(
        model,
        **lora.model_dump(exclude={"target_modules"}),
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
        use_gradient_checkpointing=checkpointing,
        random_state=run.config.grpo.seed,
    )
    if adapter is not None:
        set_peft_model_state_dict(model, load_peft_weights(str(adapter)))
    return model


def _attention(run: Run) -> dict[str, Any]:
    stated = run.config.model.attn_implementation
    return {} if stated is None else {"attn_implementation": stated}


def _engine(run: Run) -> dict[str, Any]:
    if not run.plan.uses_vllm:
        return {}
    return {
        "fast_inference": True,
        "gpu_memory_utilization": run.plan.gpu_memory_utilization or 0.5,
        "max_lora_rank": served_rank(run.config.lora.r),
    }
