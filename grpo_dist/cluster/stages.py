"""The stages of a run, each a process with one result: what starts them, on one machine or on a node of several."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.config import RunConfig
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.comparison import comparing_processes
from grpo_dist.render.accelerate import launch_arguments
from grpo_dist.run_directory import RunDirectory

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
            "prepare", (python, "-m", "grpo_dist.training.prepare", where), run.prepared, alone=True, generates=False
        ),
        Stage("train", launched("grpo_dist.training", run, plan, machine), run.adapter, alone=False, generates=True),
    ]
    if config.evaluation.enabled:
        module, shared = "grpo_dist.training.compare", comparing_processes(config, plan.topology) > 1
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
