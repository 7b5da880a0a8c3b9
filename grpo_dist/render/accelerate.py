"""The configuration file of `accelerate launch`, and the arguments that go with it."""

from __future__ import annotations

from typing import Any

import yaml

from grpo_dist.plan import LaunchPlan

ACCELERATE_FILE = "accelerate.yaml"
DEEPSPEED_FILE = "deepspeed.json"

PER_NODE = (
    "# One file for all nodes; each node adds its own three on the command line:\n"
    "#   --machine_rank RANK --main_process_ip FIRST-NODE --main_process_port PORT\n"
)
BESIDE = (
    f"# {DEEPSPEED_FILE} is read from the current directory;\n"
    f"# from another one: --deepspeed_config_file DIR/{DEEPSPEED_FILE}\n"
)


def accelerate_yaml(plan: LaunchPlan) -> str:
    """Accelerate's YAML for this plan, with what it cannot know as comments at its head."""
    several_nodes = plan.topology.trainer_nodes > 1
    head = (PER_NODE if several_nodes else "") + (BESIDE if is_deepspeed(plan) else "")
    return head + yaml.safe_dump(_world(plan) | _strategy(plan), sort_keys=True)


def launch_arguments(plan: LaunchPlan, directory: str) -> list[str]:
    """Arguments of `accelerate launch` that read this plan's files from `directory`, wherever it is started."""
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
        # Ranks follow machine_rank, so rank 0 is on the first node; c10d would give them out as nodes arrive.
        # (Accelerate 1.15 takes both of these from its command line alone, where static is the default.)
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": where.device == "cpu" and where.num_processes == 1,
    }
    if where.trainer_nodes == 1:
        settings["main_process_port"] = 0  # a free one, found at launch; several nodes have to agree on one
    return settings


def _distributed_type(plan: LaunchPlan) -> str:
    """MULTI_CPU would be launched as one process without a word (accelerate 1.15); MULTI_GPU starts them all, and
    TRL's use_cpu makes them MULTI_CPU."""
    if is_deepspeed(plan):
        return "DEEPSPEED"
    if plan.strategy == "fsdp2":
        return "FSDP"
    return "MULTI_GPU" if plan.topology.num_processes > 1 else "NO"


def _gpu_ids(plan: LaunchPlan) -> str:
    """The GPUs of a node that train, where others are left to rollouts or to nobody.

    Without them a lone process that sees several GPUs would make Transformers wrap the model in `nn.DataParallel`.
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
    """Accelerate refuses mixed_precision, zero_stage and the like beside a DeepSpeed file, so they stand only there."""
    return {
        "deepspeed_config_file": DEEPSPEED_FILE,
        # Left out, Accelerate takes pdsh for several nodes: ssh from the first node to the others, a hostfile, and the
        # environment of this process nowhere.
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
