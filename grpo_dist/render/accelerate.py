"""The configuration file of `accelerate launch` with the arguments that go with it, and DeepSpeed's for ZeRO 1 to 3.

In DeepSpeed's file no value is `auto`: the plan knows them all, so the file also works with `deepspeed.initialize`
alone, and Transformers, which compares it with its own arguments, refuses the run where the two differ.

Optimizer and schedule are left out: Transformers builds what `grpo.optim` and `grpo.lr_scheduler_type` name, and
DeepSpeed shards that optimizer, whichever it is (`zero_allow_untested_optimizer`). None of DeepSpeed's own is used, so
there is nothing to compile at the first start; on CPU alone it compiles its collectives, once, in some minutes.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

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


ACCELERATE_FILE = "accelerate.yaml"
DEEPSPEED_FILE = "deepspeed.json"

MULTI_NODE_NOTE = (
    "# One file for all nodes; each node adds its own three on the command line:\n"
    "#   --machine_rank RANK --main_process_ip FIRST-NODE --main_process_port PORT\n"
)
DEEPSPEED_NOTE = (
    f"# {DEEPSPEED_FILE} is read from the current directory;\n"
    f"# from another one: --deepspeed_config_file DIR/{DEEPSPEED_FILE}\n"
)


def accelerate_yaml(plan: LaunchPlan) -> str:
    """Accelerate's YAML for this plan; comments at its head say what has to be added at launch."""
    several_nodes = plan.topology.trainer_nodes > 1
    head = (MULTI_NODE_NOTE if several_nodes else "") + (DEEPSPEED_NOTE if is_deepspeed(plan) else "")
    return head + yaml.safe_dump(_world(plan) | _strategy(plan), sort_keys=True)


def launch_arguments(plan: LaunchPlan, directory: str) -> list[str]:
    """Arguments of `accelerate launch` that read this plan's files from `directory`, from any working directory."""
    arguments = ["--config_file", f"{directory}/{ACCELERATE_FILE}"]
    if is_deepspeed(plan):
        arguments += ["--deepspeed_config_file", f"{directory}/{DEEPSPEED_FILE}"]
    return arguments


def is_deepspeed(plan: LaunchPlan) -> bool:
    return plan.strategy.startswith("zero")


def _world(plan: LaunchPlan) -> dict[str, Any]:
    """How many processes, and how they find each other."""
    where = plan.topology
    settings = {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "distributed_type": _distributed_type(plan),
        "gpu_ids": _gpu_ids(plan),
        "machine_rank": 0,
        "main_training_function": "main",
        "num_machines": where.trainer_nodes,
        "num_processes": where.num_processes,
        # With static, ranks follow machine_rank and rank 0 is on the first node; c10d assigns them as nodes arrive.
        # (Accelerate 1.15 takes both of these from its command line alone, where static is the default.)
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": where.on_cpu and where.num_processes == 1,
    }
    if where.trainer_nodes == 1:
        settings["main_process_port"] = 0  # a free one, found at launch; several nodes have to agree on one
    return settings


def _distributed_type(plan: LaunchPlan) -> str:
    """Accelerate's distributed type.

    Accelerate 1.15 silently launches MULTI_CPU as a single process. MULTI_GPU starts all processes, and TRL's use_cpu
    turns them into MULTI_CPU.
    """
    if is_deepspeed(plan):
        return "DEEPSPEED"
    if plan.strategy == "fsdp2":
        return "FSDP"
    return "MULTI_GPU" if plan.topology.num_processes > 1 else "NO"


def _gpu_ids(plan: LaunchPlan) -> str:
    """The training GPUs of a node, if some of its GPUs are used by rollouts or not at all.

    Without this a single process that sees several GPUs would make Transformers wrap the model in `nn.DataParallel`.
    """
    where = plan.topology
    training = where.trainer_gpus
    return ",".join(map(str, training)) if training and len(training) < where.gpus_per_node else "all"


def _strategy(plan: LaunchPlan) -> dict[str, Any]:
    if is_deepspeed(plan):
        return {"deepspeed_config": _deepspeed(plan)}
    # `no` in both: TRL's bf16 and fp16 decide it inside the process.
    precision = {"mixed_precision": "no"}
    return precision | {"fsdp_config": FSDP2} if plan.strategy == "fsdp2" else precision


def _deepspeed(plan: LaunchPlan) -> dict[str, Any]:
    """Accelerate refuses mixed_precision, zero_stage and the like next to a DeepSpeed file, which has them instead."""
    return {
        "deepspeed_config_file": DEEPSPEED_FILE,
        # The default for several nodes is pdsh, which needs ssh from the first node to the others and a hostfile, and
        # does not pass on the environment.
        "deepspeed_multinode_launcher": "standard",
        "zero3_init_flag": plan.strategy == "zero3",
    }


FSDP2 = {
    # Recomputation is grpo.gradient_checkpointing; Transformers refuses both together.
    "fsdp_activation_checkpointing": False,
    # Wraps what the model lists in _no_split_modules: its decoder layers.
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    # The first process reads the weights and sends each of the others its shard.
    "fsdp_cpu_ram_efficient_loading": True,
    "fsdp_offload_params": False,
    "fsdp_reshard_after_forward": True,
    # The only type for which Transformers writes adapter_model.safetensors into a checkpoint.
    "fsdp_state_dict_type": "FULL_STATE_DICT",
    "fsdp_version": 2,
}
"""TRL 1.16's own `accelerate_configs/fsdp2.yaml`."""
