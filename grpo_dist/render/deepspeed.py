"""DeepSpeed's configuration file for ZeRO stages 1 to 3.

No value is `auto`: the plan knows them all, so the file also works with `deepspeed.initialize` alone, and
Transformers, which compares it with its own arguments, refuses the run where the two differ.

Optimizer and schedule are left out: Transformers builds what `grpo.optim` and `grpo.lr_scheduler_type` name, and
DeepSpeed shards that optimizer, whichever it is (`zero_allow_untested_optimizer`). None of DeepSpeed's own is used, so
there is nothing to compile at the first start; on CPU alone it compiles its collectives, once, in some minutes.
"""

from __future__ import annotations

import json
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.specs import architecture_of

HIDDEN_SIZE_IF_UNKNOWN = 4096
"""For bucket sizes if the model's configuration is unknown; they affect speed slightly, and results not at all."""


def deepspeed_json(config: RunConfig, plan: LaunchPlan) -> str:
    """DeepSpeed's JSON for a plan whose strategy is zero1, zero2 or zero3.

    train_batch_size is left to DeepSpeed: micro-batch × accumulation × the processes it finds.
    """
    settings = {
        "train_micro_batch_size_per_gpu": plan.batch.per_device_train_batch_size,
        "gradient_accumulation_steps": plan.batch.gradient_accumulation_steps,
        "gradient_clipping": config.grpo.max_grad_norm,
        "bf16": {"enabled": config.model.dtype == "bfloat16"},
        "fp16": {"enabled": config.model.dtype == "float16"},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": _zero(int(plan.strategy.removeprefix("zero")), _hidden_size(config)),
    }
    return json.dumps(settings, indent=2) + "\n"


def _zero(stage: int, hidden: int) -> dict[str, Any]:
    """The sizes are those Transformers fills in for `auto` (`integrations/deepspeed.py`)."""
    settings: dict[str, Any] = {"stage": stage, "contiguous_gradients": True, "reduce_bucket_size": hidden * hidden}
    if stage < 3:
        return settings
    return settings | {
        "overlap_comm": True,
        "stage3_prefetch_bucket_size": int(0.9 * hidden * hidden),
        # Norms and other small parameters stay whole on each GPU rather than be gathered one by one.
        "stage3_param_persistence_threshold": 10 * hidden,
        # Without it, Accelerate's get_state_dict refuses to return the weights, so nothing could be saved.
        "stage3_gather_16bit_weights_on_model_save": True,
    }


def _hidden_size(config: RunConfig) -> int:
    try:
        return architecture_of(config.model.name_or_path, config.model.revision).hidden_size
    except PlanError:
        return HIDDEN_SIZE_IF_UNKNOWN
