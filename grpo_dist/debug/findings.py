"""What a debug run finds out about the run on the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.findings import Finding
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.debug import Debug
from grpo_dist.text import gib

GIB = 2**30
MOST_CUT = 0.05
"""Share of completions cut at the length limit from which on it is a warning."""
MOST_EQUAL = 0.5
"""Share of groups with equal rewards, which teach nothing, from which on it is a warning."""
SAMPLE = "where the model fits, ask it: grpo-dist rewards CONFIG --set rewards.preflight_samples=16"
BAND = "grpo-dist filter CONFIG --output band.jsonl keeps problems that are sometimes solved; or more num_generations"


def plan_findings(plan: LaunchPlan) -> Iterator[Finding]:
    """The planner's warnings about the cluster, and the planned topology."""
    for warning in plan.warnings:
        yield Finding("plan", "warning", warning, "grpo-dist plan CONFIG")
    where = plan.topology
    what = f"{where.nodes} × {where.gpus_per_node} GPUs, {where.num_processes} training processes"
    yield Finding("plan", "ok", what if where.device == "cuda" else f"{where.num_processes} processes on CPU")


def reward_findings(report: Mapping[str, Any] | None) -> Iterator[Finding]:
    """The findings of the reward preflight, unchanged."""
    if report is not None:
        found = [Finding(**finding) for finding in report["findings"]]
        yield from found or [Finding("rewards", "ok", "their preflight finds nothing against them")]


def step_findings(config: RunConfig, debug: Debug, steps: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Findings about the trained steps.

    Args:
        config: the configuration for the cluster.
        steps: lines of metrics.jsonl.
    """
    if not steps:
        return
    broken = [step["step"] for step in steps if step.get("loss") is None or step.get("grad_norm") is None]
    if broken:
        what = f"loss or gradient of step {broken[0]} is no finite number"
        yield Finding("loss", "error", what, "--set model.dtype=bfloat16, or a lower grpo.learning_rate")
    else:
        yield Finding("loss", "ok", f"loss and gradient are finite in {len(steps)} steps")
    yield _truncation(config, debug, _mean(steps, "completions/clipped_ratio"))
    yield _zero_variance(debug, _mean(steps, "frac_reward_zero_std"))


def _mean(steps: Sequence[Mapping[str, Any]], name: str) -> float:
    return fmean(step.get(name) or 0.0 for step in steps)


def _truncation(config: RunConfig, debug: Debug, share: float) -> Finding:
    name = "truncation"
    limit, cluster_limit = debug.config.grpo.max_completion_length, config.grpo.max_completion_length
    if debug.small:
        what = f"not known: random weights end by chance, {share:.0%} of completions not within {limit:,} tokens"
        return Finding(name, "warning", what, SAMPLE)
    what = f"{share:.0%} of completions are cut at {limit:,} tokens"
    if share <= MOST_CUT:
        return Finding(name, "ok", what)
    if limit < cluster_limit:
        what += f"; whether {cluster_limit:,} are enough this trial is too short to say"
        return Finding(name, "warning", what, SAMPLE)
    what += "; an answer after the cut cannot be paid"
    return Finding(name, "warning", what, f"--set grpo.max_completion_length={2 * limit}")


def _zero_variance(debug: Debug, share: float) -> Finding:
    name = "zero-variance"
    if debug.small:
        what = f"not known: with random weights {share:.0%} of groups have all rewards alike"
        return Finding(name, "warning", what, SAMPLE)
    what = f"{share:.0%} of groups have all rewards alike and teach nothing"
    return Finding(name, "warning", what, BAND) if share > MOST_EQUAL else Finding(name, "ok", what)


def longest_batch_findings(debug: Debug, planned: LaunchPlan, longest: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Findings about the step with the longest prompts and full completions.

    Args:
        planned: the plan for the cluster.
    """
    if longest is None:
        return
    name = "longest-batch"
    what = (
        f"one step of {longest['completions']} completions of {longest['completion_tokens']:,.0f} tokens "
        f"on prompts of up to {longest['prompt_tokens']:,} went through"
    )
    peak, planned_bytes = longest["peak_bytes"], _trainer_bytes(debug.plan)
    if peak is None:
        yield Finding(name, "ok", f"{what}; a CPU cannot tell the memory of a GPU{_cluster_memory(planned)}")
    elif debug.small or planned_bytes is None:
        yield Finding(
            name, "ok", f"{what}; peak {gib(peak)}, which says nothing of the large model{_cluster_memory(planned)}"
        )
    elif peak <= planned_bytes:
        yield Finding(name, "ok", f"{what}; peak {gib(peak)}, planned {gib(planned_bytes)}")
    else:
        smaller = max(1, planned.batch.per_device_train_batch_size // 2)
        hint = f"leave more room: --set distributed.max_per_device_train_batch_size={smaller}"
        what = f"{what}; peak {gib(peak)}, more than the {gib(planned_bytes)} planned{_cluster_memory(planned)}"
        yield Finding(name, "warning", what, hint)


def _cluster_memory(plan: LaunchPlan) -> str:
    planned = _trainer_bytes(plan)
    if planned is None or not plan.memory["gpu_bytes"]:
        return ""
    room = plan.memory["gpu_bytes"]
    return f"; the cluster's plan counts {gib(planned)} of {gib(room)} for a trainer (grpo-dist plan CONFIG)"


def _trainer_bytes(plan: LaunchPlan) -> int | None:
    """The most memory that a role that trains uses on a GPU."""
    if plan.memory is None:
        return None
    roles = plan.memory["roles"]
    return roles["trainer"]["total_bytes"] if "trainer" in roles else max(r["total_bytes"] for r in roles.values())
