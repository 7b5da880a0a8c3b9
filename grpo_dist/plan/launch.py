"""Everything derived from a configuration before a process is started."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from grpo_dist.config import RunConfig
from grpo_dist.plan.batch import BatchPlan, aligned_save_steps, plan_batch
from grpo_dist.plan.topology import Topology, topology


@dataclass(frozen=True)
class LaunchPlan:
    """What will run, where, and in which portions; `plan.json` of a run directory."""

    topology: Topology
    batch: BatchPlan
    max_steps: int | None
    save_steps: int
    backend: str
    warnings: tuple[str, ...]

    @property
    def distributed_type(self) -> str:
        return self.topology.distributed_type

    def to_json(self) -> str:
        """Deterministic text, one key per line."""
        return json.dumps({**asdict(self), "distributed_type": self.distributed_type}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LaunchPlan:
        """The plan `to_json` wrote."""
        fields = json.loads(text)
        del fields["distributed_type"]
        fields["topology"] = Topology(**fields["topology"])
        fields["batch"] = BatchPlan(**fields["batch"])
        fields["warnings"] = tuple(fields["warnings"])
        return cls(**fields)


def plan_run(config: RunConfig) -> LaunchPlan:
    """Derive the launch from the configuration alone: no torch, no network, no look at this machine.

    Raises:
        PlanError: the stated quantities cannot run together.
    """
    where = topology(config)
    batch = plan_batch(
        prompts_per_step=config.grpo.prompts_per_step,
        num_generations=config.grpo.num_generations,
        num_processes=where.num_processes,
        max_per_device_train_batch_size=config.distributed.max_per_device_train_batch_size,
        processes_key=where.processes_key,
    )
    save_steps = aligned_save_steps(config.grpo.save_steps, config.grpo.num_iterations)
    return LaunchPlan(
        topology=where,
        batch=batch,
        max_steps=config.grpo.max_steps if config.grpo.max_steps > 0 else None,
        save_steps=save_steps,
        backend=config.rollout.backend,
        warnings=tuple(_warnings(config, batch, save_steps)),
    )


def _warnings(config: RunConfig, batch: BatchPlan, save_steps: int) -> list[str]:
    grpo, found = config.grpo, []
    limit = config.distributed.max_per_device_train_batch_size
    per_process = batch.per_device_train_batch_size * batch.gradient_accumulation_steps
    if save_steps != grpo.save_steps:
        found.append(
            f"grpo.save_steps: {grpo.save_steps} falls inside a generation window of {grpo.num_iterations} optimizer "
            f"steps; checkpoints are saved every {save_steps}"
        )
    if batch.per_device_train_batch_size * 2 <= min(limit, per_process):
        found.append(
            f"{per_process} completions per process split only into micro-batches of "
            f"{batch.per_device_train_batch_size} below the limit of {limit}: "
            f"{batch.gradient_accumulation_steps} passes per step; a rounder grpo.prompts_per_step is faster"
        )
    if config.lora.lora_dropout > 0:
        found.append(
            "lora.lora_dropout: GRPO scores in train mode, so dropout distorts every policy ratio; set it to 0"
        )
    return found
