"""The stages of a run, each a process with one result: their commands, and the variables that select their devices.

Used on one machine and on the nodes of a job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.config import RunConfig
from grpo_dist.plan import LaunchPlan, Topology
from grpo_dist.plan.comparison import comparing_processes
from grpo_dist.plan.topology import visible_gpus
from grpo_dist.render.accelerate import launch_arguments
from grpo_dist.run.directory import RunDirectory

TRAINING = "grpo_dist.training"
"""The program of the stages; its arguments are the name of a stage and the run directory."""
QUIET = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
"""No warnings about forked tokenizers, and log lines in order."""


@dataclass(frozen=True)
class Stage:
    """One process of a run; its result exists if and only if it is done."""

    name: str
    argv: tuple[str, ...]
    result: Path
    alone: bool
    """Runs as one process on one device, whatever the plan has."""
    generates: bool
    """Uses the rollout servers, if there are any."""


@dataclass(frozen=True)
class Machine:
    """Rank of a node among those that train, and the address and port of their first process."""

    rank: int
    address: str
    port: int


def stages(run: RunDirectory, plan: LaunchPlan, config: RunConfig, machine: Machine | None = None) -> list[Stage]:
    """The stages in order. `machine` is needed if several nodes train."""
    found = [
        Stage("prepare", stage_command("prepare", run), run.prepared, alone=True, generates=False),
        Stage("train", launch_command("train", run, plan, machine), run.adapter, alone=False, generates=True),
    ]
    if config.evaluation.enabled:
        shared = comparing_processes(config, plan.topology) > 1
        argv = launch_command("compare", run, plan, machine) if shared else stage_command("compare", run)
        found.append(Stage("compare", argv, run.comparison, alone=not shared, generates=True))
    return found


def stage_command(stage: str, run: RunDirectory) -> tuple[str, ...]:
    """The command that runs a stage in one process."""
    return (sys.executable, "-m", TRAINING, stage, str(run.path))


def launch_command(stage: str, run: RunDirectory, plan: LaunchPlan, machine: Machine | None = None) -> tuple[str, ...]:
    """The `accelerate launch` command that runs a stage in all training processes of this machine."""
    where = str(run.path)
    # `all` visible GPUs: Slurm may number them differently from the configuration file. Without a directory for logs,
    # of which the ranks write none, torchrun makes one among the temporary files and leaves it there.
    options = (*launch_arguments(plan, where), "--gpu_ids", "all", "--log_dir", os.devnull, *_rendezvous(machine))
    return (sys.executable, "-m", "accelerate.commands.launch", *options, "-m", TRAINING, stage, where)


def _rendezvous(machine: Machine | None) -> tuple[str, ...]:
    if machine is None:
        return ()
    return (
        *("--machine_rank", str(machine.rank)),
        *("--main_process_ip", machine.address),
        *("--main_process_port", str(machine.port)),
    )


ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
ALLOCATORS = (ALLOCATOR, "PYTORCH_ALLOC_CONF")
"""The variable, and its newer name."""


def allocator_environment(config: RunConfig, topology: Topology, environ: Mapping[str, str]) -> dict[str, str]:
    """Expandable segments, which reduce fragmentation, where they are possible.

    They are not with vLLM's sleep mode, which has an allocator of its own, nor with a colocated engine on several GPUs,
    which shares addresses of its memory. Variables the user has set are kept.
    """
    colocated = topology.colocated
    forbidden = colocated and (config.rollout.enable_sleep_mode or topology.tensor_parallel_size > 1)
    if topology.on_cpu or forbidden or any(name in environ for name in ALLOCATORS):
        return {}
    return {ALLOCATOR: "expandable_segments:True"}


def device_environment(topology: Topology, environ: Mapping[str, str], *, alone: bool) -> dict[str, str]:
    """Variables that select devices and threads; thread settings of the user are kept.

    Args:
        alone: for a single process, which gets one device.

    Raises:
        PlanError: fewer GPUs are visible than planned.
    """
    if not topology.on_cpu:
        visible = visible_gpus(topology.gpus_per_node, environ.get("CUDA_VISIBLE_DEVICES"))
        training = [visible[index] for index in topology.trainer_gpus]
        return {"CUDA_VISIBLE_DEVICES": training[0] if alone else ",".join(training)}
    processes = 1 if alone else topology.num_processes // topology.trainer_nodes
    threads = {
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes)),
        # Spinning threads made generation 12 times slower when another program used the same cores.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if topology.colocated:  # with g++, for ten seconds in each process, although engines on a CPU are eager
        threads["TORCH_COMPILE_DISABLE"] = "1"
    unset = {name: value for name, value in threads.items() if name not in environ}
    # Without ACCELERATE_TORCH_DEVICE two resumed processes cannot place their optimizer state ("tagged with cpu:0").
    return {**unset, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_TORCH_DEVICE": "cpu"}
