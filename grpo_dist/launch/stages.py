"""The stages of a run, each a process with one result: what starts them, on one machine or on a node of several.

The environment variables that give a process the devices and threads of the plan.
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

QUIET = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
"""No warnings about forked tokenizers, and a log whose lines are in order."""


@dataclass(frozen=True)
class Stage:
    """One process of a run; its result stands when, and only when, it is done."""

    name: str
    argv: tuple[str, ...]
    result: Path
    alone: bool
    """One process on one device, whatever the plan has."""
    generates: bool
    """It asks the rollout servers, where there are any."""


@dataclass(frozen=True)
class Machine:
    """Where a node stands among those that train, and where their first process listens."""

    rank: int
    address: str
    port: int


def stages(run: RunDirectory, plan: LaunchPlan, config: RunConfig, machine: Machine | None = None) -> list[Stage]:
    """In their order. A machine is needed where several nodes train."""
    python, where = sys.executable, str(run.path)
    found = [
        Stage(
            "prepare",
            (python, "-m", "grpo_dist.training.stages.prepare", where),
            run.prepared,
            alone=True,
            generates=False,
        ),
        Stage("train", launched("grpo_dist.training", run, plan, machine), run.adapter, alone=False, generates=True),
    ]
    if config.evaluation.enabled:
        module, shared = "grpo_dist.training.stages.compare", comparing_processes(config, plan.topology) > 1
        argv = launched(module, run, plan, machine) if shared else (python, "-m", module, where)
        found.append(Stage("compare", argv, run.comparison, alone=not shared, generates=True))
    return found


def launched(module: str, run: RunDirectory, plan: LaunchPlan, machine: Machine | None = None) -> tuple[str, ...]:
    """What starts this machine's training processes, each of which executes the module for the run."""
    where = str(run.path)
    # `all`: of the GPUs this process may see, which Slurm may have numbered otherwise than the file does.
    options = (*launch_arguments(plan, where), "--gpu_ids", "all", *_rendezvous(machine))
    return (sys.executable, "-m", "accelerate.commands.launch", *options, "-m", module, where)


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
    """Segments that grow, so that memory is not lost between them, where a process has the whole of its GPU's tensors.

    vLLM's sleep mode has an allocator of its own, and engines over several GPUs hand out addresses of their memory:
    neither goes with it. What the user has set stays.
    """
    colocated = topology.mode == "colocate"
    forbidden = colocated and (config.rollout.enable_sleep_mode or topology.tensor_parallel_size > 1)
    if topology.device != "cuda" or forbidden or any(name in environ for name in ALLOCATORS):
        return {}
    return {ALLOCATOR: "expandable_segments:True"}


def device_environment(topology: Topology, environ: Mapping[str, str], *, alone: bool) -> dict[str, str]:
    """Variables to set beside `environ`; what the user has set of threads stays.

    With alone the process is a single one and gets one device.

    Raises:
        PlanError: fewer GPUs are visible than planned.
    """
    if topology.device == "cuda":
        visible = visible_gpus(topology.gpus_per_node, environ.get("CUDA_VISIBLE_DEVICES"))
        training = [visible[index] for index in topology.trainer_gpus]
        return {"CUDA_VISIBLE_DEVICES": training[0] if alone else ",".join(training)}
    processes = 1 if alone else topology.num_processes // topology.trainer_nodes
    ours = {
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes)),
        # Threads that spin while they wait for one another program has displaced made generation 12 times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    unset = {name: value for name, value in ours.items() if name not in environ}
    # Without the second, a resumed two-process run cannot place its optimizer state ("tagged with cpu:0").
    return {**unset, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_TORCH_DEVICE": "cpu"}
