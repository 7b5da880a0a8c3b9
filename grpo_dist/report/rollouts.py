"""What a run's completions took: generation, policy sync, waiting; and how far sampler and trainer are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from grpo_dist.report.numbers import plural
from grpo_dist.report.record import RunRecord
from grpo_dist.report.series import Values, column, present

GENERATION, SYNC = "perf/generation_seconds", "perf/sync_seconds"
UTILIZATION, IDLE = "perf/replica_utilization", "perf/idle_share"
DIFFERENCE = "sampling/sampling_logp_difference"
CANARY = "perf/canary_difference"
EFFECTIVE_SAMPLE, LOW_WEIGHT = "sampling/effective_sample_size", "sampling/low_weight_share"

MEASURED: Mapping[str, tuple[str, Callable[[list[float]], float]]] = {
    "generation_seconds": (GENERATION, median),
    "sync_seconds": (SYNC, median),
    "sync_bytes": ("perf/sync_bytes", median),
    "replica_utilization": (UTILIZATION, fmean),
    "idle_share": (IDLE, fmean),
    "sampling_logp_difference_max": (f"{DIFFERENCE}/max", max),
    "canary_difference_max": (CANARY, max),
    "effective_sample_size": (EFFECTIVE_SAMPLE, fmean),
    "effective_sample_size_min": (EFFECTIVE_SAMPLE, min),
    "low_weight_share": (LOW_WEIGHT, fmean),
    "groups_drawn": ("sampling/groups_drawn", fmean),
    "groups_kept": ("sampling/groups_kept", fmean),
}
"""Name in the summary → metric, and what is made of its values."""


def rollouts(record: RunRecord) -> dict[str, Any]:
    """JSON-ready: `mode` and `replicas` as planned (colocated engines count as replicas), the rest as logged.

    Seconds and bytes are medians of the logged values, shares (0 to 1) and groups their means, differences of
    log-probabilities (nats per token) the largest; of the effective sample the smallest too. Null where nothing was
    logged.
    """
    found: dict[str, Any] = {"mode": record.planned("topology.mode"), "replicas": _replicas(record)}
    for name, (metric, reduced) in MEASURED.items():
        values = present(column(record.metrics, metric))
        found[name] = reduced(values) if values else None
    return found


def generated_by(known: Mapping[str, Any]) -> str:
    """Back end, mode and engines of a summary: "vllm server, 4 replicas"."""
    mode, replicas = known["rollouts"]["mode"], known["rollouts"]["replicas"]
    where = " ".join(dict.fromkeys(str(part) for part in (known["backend"], mode) if part))
    return ", ".join(part for part in (where, plural(replicas, "replica") if replicas else "") if part)


def per_step(seconds: Values, steps: Sequence[int], num_iterations: int) -> tuple[float | None, ...]:
    """Seconds of a generation (or sync) as seconds of an optimizer step.

    A generation serves `num_iterations` steps. It is logged with the first of them, as the mean over the generations
    since the line before; a step that trains on earlier completions logs none.
    """
    gaps = (step - before for before, step in zip((0, *steps), steps, strict=False))
    shared = num_iterations > 1 and present(seconds)
    nothing = 0.0 if shared else None
    return tuple(
        nothing if value is None else value / max(1, min(gap, num_iterations))
        for value, gap in zip(seconds, gaps, strict=True)
    )


def rest(total: Values, *parts: Values) -> tuple[float | None, ...]:
    """What is left of each step; None where it or the first part is not known."""
    return tuple(
        None if whole is None or taken[0] is None else max(0.0, whole - sum(present(taken)))
        for whole, *taken in zip(total, *parts, strict=True)
    )


def _replicas(record: RunRecord) -> int | None:
    mode = record.planned("topology.mode")
    if mode == "server":
        return len(record.planned("topology.replicas") or ())
    if mode == "colocate":
        return record.planned("topology.num_processes") // record.planned("topology.tensor_parallel_size")
    return None
