"""What each cluster size means for a step: the group, the batch, the learning rate, memory and time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError
from grpo_dist.plan.checks import jobs_of, steps_of_a_job
from grpo_dist.plan.fit import nodes_of_a_group
from grpo_dist.plan.inputs import Measured
from grpo_dist.plan.launch import LaunchPlan, plan_run, plan_without_hint
from grpo_dist.plan.time import LearningRateAdvice, learning_rate_advice

Keep = Literal["prompts", "completions", "group"]
SYNC = ("gradient sync", "policy sync", "weight gathering", "sleep and wake")
"""Parts of a step that move weights or gradients."""
STEPS = 100
"""Optimizer steps for which hours are given if grpo.max_steps is not set."""


@dataclass(frozen=True)
class Size:
    """One number of nodes with one group size: a plan, or the reason there is none."""

    nodes: int
    num_generations: int
    prompts_per_step: int | None
    """None if what is kept fixed gives no whole number of prompts."""
    learning_rate: LearningRateAdvice | None
    plan: LaunchPlan | None
    problem: PlanError | None
    config: RunConfig | None = None
    """The plan of this size."""
    other: LaunchPlan | None = None
    """The same machines with the other way to generate, colocated or on separate GPUs; None if it cannot run."""

    def to_dict(self, steps: int, problems: int | None = None, price: float | None = None) -> dict[str, Any]:
        """Ready for JSON; hours and cost are for `steps` steps and the comparison.

        Args:
            problems: number in the data, for the hours of an epoch.
            price: of a GPU-hour.
        """
        completions = self.prompts_per_step and self.prompts_per_step * self.num_generations
        return {
            "nodes": self.nodes,
            "num_generations": self.num_generations,
            "prompts_per_step": self.prompts_per_step,
            "completions_per_step": completions,
            "learning_rate": None if self.learning_rate is None else self.learning_rate._asdict(),
            "runs": self.plan is not None,
            "problem": None if self.problem is None else {"message": self.problem.message, "hint": self.problem.hint},
            **({} if self.plan is None else _planned(self.plan, steps)),
            **({} if self.plan is None or self.plan.time is None else self._of_time(steps, problems, price)),
        }

    def _of_time(self, steps: int, problems: int | None, price: float | None) -> dict[str, Any]:
        """How long each part takes, and the totals."""
        time, compared = self.plan.time, self.plan.time["comparison"]
        seconds = steps * time["seconds_per_step"] + (compared["seconds"] if compared else 0.0)
        gpus = self.plan.topology.nodes * self.plan.topology.gpus_per_node
        gpu_hours = gpus * seconds / 3600 if gpus else None
        parts = {part["name"]: part["seconds"] for part in time["parts"]}
        return {
            "generation_seconds": parts.pop("generation", 0.0),
            "sync_seconds": sum(parts.pop(name, 0.0) for name in SYNC),
            "training_seconds": sum(parts.values()),
            "comparison_seconds": compared and compared["seconds"],
            "tokens_per_second_per_gpu": time["tokens_per_second"] / (gpus or 1),
            "mode": self.plan.topology.mode,
            "other_mode": self.other and self.other.topology.mode,
            "other_seconds_per_step": self.other and self.other.time and self.other.time["seconds_per_step"],
            "run_hours": seconds / 3600,
            "run_gpu_hours": gpu_hours,
            "hours_per_epoch": problems and problems / self.prompts_per_step * time["seconds_per_step"] / 3600,
            "jobs": jobs_of(self.config, seconds),
            "steps_per_job": steps_of_a_job(self.config, seconds, time["seconds_per_step"]),
            "cost": None if price is None or gpu_hours is None else price * gpu_hours,
        }


def sizes(
    config: RunConfig,
    nodes: Iterable[int],
    groups: Iterable[int] = (),
    keep: Keep = "prompts",
    measured: Measured | None = None,
) -> Iterator[Size]:
    """Every number of nodes with every group size; without groups, with the configuration's own.

    Kept fixed at every size: `prompts`: prompts per step; `completions`: completions per step, so a larger group means
    fewer prompts; `group`: completions per node, so prompts grow with the nodes.

    The configured rollout.nodes, rollout.replicas and, with GPUs, distributed.num_processes apply at the
    configuration's own number of nodes; at others they are left open, keeping whole nodes or GPUs of each.
    """
    groups = list(groups) or [config.grpo.num_generations]
    for count in nodes:
        for group in groups:
            yield _size(config, count, group, keep, measured)


def rows(found: Iterable[Size], steps: int, problems: int | None, price: float | None) -> list[dict[str, Any]]:
    """All sizes ready for JSON, with their efficiency: tokens/s of a GPU over those on the fewest GPUs."""
    made = [size.to_dict(steps, problems, price) for size in found]
    timed = [row for row in made if row.get("tokens_per_second_per_gpu")]
    if timed:
        first = min(timed, key=lambda row: row["gpus"])["tokens_per_second_per_gpu"]
        for row in timed:
            row["efficiency"] = row["tokens_per_second_per_gpu"] / first
    return made


def hours_of(config: RunConfig) -> int:
    """Steps for which the hours of a size are given."""
    return config.grpo.max_steps if config.grpo.max_steps > 0 else STEPS


def _size(config: RunConfig, nodes: int, group: int, keep: Keep, measured: Measured | None) -> Size:
    try:
        prompts = _prompts(config, nodes, group, keep)
    except PlanError as problem:
        return Size(nodes, group, None, None, None, problem)
    grpo, before = config.grpo, config.grpo.prompts_per_step * config.grpo.num_generations
    advice = learning_rate_advice(grpo.learning_rate, before, prompts * group, grpo.optim)
    sized = _sized(config, nodes, group, prompts)
    try:
        plan = plan_run(sized, measured)
    except PlanError as problem:
        return Size(nodes, group, prompts, advice, None, problem)
    return Size(nodes, group, prompts, advice, plan, None, sized, _other_mode(sized, measured))


def _other_mode(config: RunConfig, measured: Measured | None) -> LaunchPlan | None:
    """Servers instead of colocated engines, and vice versa."""
    if not config.rollout.uses_vllm or not config.cluster.gpus_per_node:
        return None
    colocated = config.rollout.colocated
    mode = {"mode": "server" if colocated else "colocate", "replicas": "auto", "nodes": "auto"}
    own = {"tensor_parallel_size": "auto", "gpu_memory_utilization": "auto", "enable_sleep_mode": False}
    rollout = config.rollout.model_copy(update={**mode, **own})
    distributed = config.distributed.model_copy(update={"num_processes": None})
    try:
        return plan_without_hint(config.model_copy(update={"rollout": rollout, "distributed": distributed}), measured)
    except PlanError:
        return None


def _prompts(config: RunConfig, nodes: int, group: int, keep: Keep) -> int:
    prompts, own = config.grpo.prompts_per_step, config.cluster.nodes
    if keep == "prompts":
        return prompts
    if keep == "group":
        return _whole(prompts * nodes, own, f"{prompts} prompts on {own} nodes make no whole number on {nodes}")
    completions = prompts * config.grpo.num_generations
    return _whole(completions, group, f"{completions} completions per step are no whole number of groups of {group}")


def _whole(number: int, divisor: int, otherwise: str) -> int:
    whole, rest = divmod(number, divisor)
    if rest or not whole:
        raise PlanError(otherwise, hint="choose sizes that divide, or --keep prompts")
    return whole


def _sized(config: RunConfig, nodes: int, group: int, prompts: int) -> RunConfig:
    """Two sections are always changed; the split of the machines only at another number of nodes."""
    update: dict[str, Any] = {
        "cluster": config.cluster.model_copy(update={"nodes": nodes}),
        "grpo": config.grpo.model_copy(update={"num_generations": group, "prompts_per_step": prompts}),
    }
    if nodes != config.cluster.nodes:
        processes = config.distributed.num_processes
        if config.cluster.gpus_per_node == 0 and processes is not None:
            processes = max(1, processes // config.cluster.nodes) * nodes
        else:
            processes = None
        update["distributed"] = config.distributed.model_copy(update={"num_processes": processes})
        shared = {"nodes": "auto" if config.rollout.nodes else config.rollout.nodes, "replicas": "auto"}
        update["rollout"] = config.rollout.model_copy(update=shared)
    return config.model_copy(update=update)


def _planned(plan: LaunchPlan, steps: int) -> dict[str, Any]:
    where, batch, time = plan.topology, plan.batch, plan.time
    roles = (plan.memory or {}).get("roles", {})
    per_step = time and time["gpu_hours_per_step"]
    return {
        "num_processes": where.num_processes,
        "replicas": len(where.replicas),
        "gpus": where.nodes * where.gpus_per_node,
        "per_device_train_batch_size": batch.per_device_train_batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
        "generation_batch_size": batch.generation_batch_size,
        "nodes_of_a_group": nodes_of_a_group(batch.num_generations, batch.generation_batch_size, where.trainer_nodes),
        "memory": {
            name: {"total_bytes": role["total_bytes"], "headroom_bytes": role["headroom_bytes"]}
            for name, role in roles.items()
        },
        "tokens_per_step": time and time["tokens_per_step"],
        "seconds_per_step": time and time["seconds_per_step"],
        "hours": time and steps * time["seconds_per_step"] / 3600,
        "gpu_hours": None if per_step is None else steps * per_step,
        "reason": where.reason,
        "warnings": list(plan.warnings),
    }
