"""Check that the processes were launched as planned."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState

from grpo_dist.errors import LaunchError
from grpo_dist.plan import LaunchPlan

NO_GPU = "is one visible (nvidia-smi), and is this PyTorch a CUDA build? without one: --set cluster.gpus_per_node=0"


def check_device(plan: LaunchPlan) -> None:
    """Check that this machine has a GPU if the plan needs one; without it PyTorch would silently use the CPU.

    Raises:
        LaunchError: there is no GPU.
    """
    if not plan.topology.on_cpu and not torch.cuda.is_available():
        raise LaunchError("cluster.gpus_per_node: PyTorch sees no GPU on this machine", hint=NO_GPU)


def keep_to_gloo() -> None:
    """Use DeepSpeed on CPU without its own collectives, which it would compile on first use.

    That takes two minutes and a compiler; gloo's compute the same. To be called before the process group is made.

    DeepSpeed 0.19 looks into `ops.__compatible_ops__` at that moment. If it looks elsewhere, it compiles, and fails
    where there is no compiler.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def check_world(plan: LaunchPlan) -> None:
    """Compare the world of this process with the plan.

    Accelerate falls back silently: to one process for MULTI_CPU, to plain DDP for FSDP on CPU, to the CPU when no GPU
    is visible.

    Raises:
        LaunchError: world size, distributed type or device differs from the plan.
    """
    state = PartialState(cpu=plan.topology.on_cpu)
    planned = (plan.topology.num_processes, plan.distributed_type, plan.topology.device)
    actual = (state.num_processes, _distributed_type(state), state.device.type)
    if planned == actual:
        return
    named = [
        f"{name} is {is_!r}, planned {was!r}"
        for name, was, is_ in zip(("world size", "distributed type", "device"), planned, actual, strict=True)
        if was != is_
    ]
    raise LaunchError(
        f"the launched processes are not the planned ones: {'; '.join(named)}",
        hint=NO_GPU
        if planned[2] == "cuda" and actual[2] != "cuda"
        else "start the run with `grpo-dist run`, which launches what it planned",
    )


def _distributed_type(state: PartialState) -> str:
    """The distributed type that the trainer's `Accelerator` will derive from this state.

    Only it turns MULTI_CPU into DEEPSPEED and MULTI_GPU into FSDP (`AcceleratorState.__init__`, Accelerate 1.15), by
    the variables that `accelerate launch` sets. If it goes by others, `check_world` refuses runs that are as planned.
    """
    plain = state.distributed_type.value
    if plain == "MULTI_CPU" and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return "DEEPSPEED"
    if plain == "MULTI_GPU" and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return "FSDP"
    return plain
