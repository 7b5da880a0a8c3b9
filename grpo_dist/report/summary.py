"""A run in a few numbers, for programs, and its hardware and rollouts in words.

Rollout numbers cover generation, policy sync and waiting, and how far sampler and trainer differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from grpo_dist.evaluation import Interval
from grpo_dist.report.numbers import Values, column, ends, finite, present
from grpo_dist.report.record import Comparison, RunRecord, Scores
from grpo_dist.text import plural

GENERATION, SYNC = "perf/generation_seconds", "perf/sync_seconds"
WAIT, STALENESS = "perf/wait_seconds", "perf/staleness"
UTILIZATION, IDLE = "perf/replica_utilization", "perf/idle_share"
DIFFERENCE = "sampling/sampling_logp_difference"
CANARY = "perf/canary_difference"
EFFECTIVE_SAMPLE, LOW_WEIGHT = "sampling/effective_sample_size", "sampling/low_weight_share"

MEASURED: Mapping[str, tuple[str, Callable[[list[float]], float]]] = {
    "generation_seconds": (GENERATION, median),
    "wait_seconds": (WAIT, median),
    "staleness": (STALENESS, max),
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
"""Name in the summary → metric, and how its values are aggregated."""


def rollouts(record: RunRecord) -> dict[str, Any]:
    """JSON-ready: `mode` and `replicas` as planned (colocated engines count as replicas), the rest as logged.

    Seconds and bytes are medians of the logged values, shares (0 to 1) and groups their means, staleness (optimizer
    steps) and differences of log-probabilities (nats per token) the maximum; of the effective sample also the minimum.
    Null if nothing was logged.
    """
    found: dict[str, Any] = {"mode": record.planned("topology.mode"), "replicas": _replicas(record)}
    for name, (metric, reduced) in MEASURED.items():
        values = present(column(record.metrics, metric))
        found[name] = reduced(values) if values else None
    return found


def generated_by(known: Mapping[str, Any]) -> str:
    """Backend, mode and engines of a summary: "vllm server, 4 replicas"."""
    mode, replicas = known["rollouts"]["mode"], known["rollouts"]["replicas"]
    where = " ".join(dict.fromkeys(str(part) for part in (known["backend"], mode) if part))
    return ", ".join(part for part in (where, plural(replicas, "replica") if replicas else "") if part)


def per_step(seconds: Values, steps: Sequence[int], num_iterations: int) -> tuple[float | None, ...]:
    """Seconds of a generation (or sync) as seconds of an optimizer step.

    A generation serves `num_iterations` steps. It is logged with the first of them, as the mean over the generations
    since the previous line; a step that trains on earlier completions logs none.
    """
    gaps = (step - before for before, step in zip((0, *steps), steps, strict=False))
    shared = num_iterations > 1 and present(seconds)
    nothing = 0.0 if shared else None
    return tuple(
        nothing if value is None else value / max(1, min(gap, num_iterations))
        for value, gap in zip(seconds, gaps, strict=True)
    )


def rest(total: Values, *parts: Values) -> tuple[float | None, ...]:
    """The rest of each step's time; None if it or the first part is not known."""
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


SCORES = ("greedy_accuracy", "mean_at_k", "pass_at_k")


def summary(record: RunRecord) -> dict[str, Any]:
    """JSON-ready; every key is always present, null if the run has not got that far.

    `reward.first` and `reward.last` are means over the first and last tenth of the steps (at least one step);
    `tokens_per_second` is the median over the steps, prompt and completion tokens; `training_seconds` is the sum of the
    step times; `distributed_type` is Accelerate's; `rollouts` is described at the function of that name; accuracies are
    fractions of the problems; differences are trained minus base, paired, `difference` that of greedy accuracy.
    """
    comparison = record.comparison
    speeds = present(column(record.metrics, "perf/tokens_per_second"))
    first, last = ends(column(record.metrics, "reward"))
    return {
        "run": record.name,
        "state": record.state,
        "model": record.stated("model.name_or_path"),
        "model_backend": record.environment.get("backend"),
        "steps": record.steps,
        "max_steps": record.planned("max_steps"),
        "world_size": record.planned("batch.num_processes"),
        "distributed_type": record.planned("distributed_type"),
        "backend": record.planned("backend"),
        "reward": {"first": first, "last": last},
        "tokens_per_second": median(speeds) if speeds else None,
        "training_seconds": training_seconds(record),
        "rollouts": rollouts(record),
        **_compared(comparison),
        "base": _scores(comparison.base if comparison else None),
        "trained": _scores(comparison.trained if comparison else None),
    }


def training_seconds(record: RunRecord) -> float | None:
    """Seconds spent in optimizer steps, generation included; None when not logged."""
    times = present(column(record.metrics, "step_time"))
    return sum(times) if times else None


def _compared(comparison: Comparison | None) -> dict[str, Any]:
    scalars = ("problems", "different_problems", "k", "confidence", "scorer", "gained", "lost")
    return {
        **{key: getattr(comparison, key, None) for key in scalars},
        "difference": _interval(comparison.difference if comparison else None),
        "differences": {name: _interval(comparison.differences.get(name) if comparison else None) for name in SCORES},
    }


def _scores(scores: Scores | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in SCORES:
        interval = getattr(scores, name, None)
        found[name] = interval.estimate if interval else None
        found[f"{name}_interval"] = {"low": interval.low, "high": interval.high} if interval else None
    found["mean_completion_length"] = finite(getattr(scores, "mean_completion_length", None))
    found["clipped_ratio"] = finite(getattr(scores, "clipped_ratio", None))
    return found


def _interval(interval: Interval | None) -> dict[str, float | None]:
    return asdict(interval) if interval else dict.fromkeys(("estimate", "low", "high"))


STRATEGIES = {
    "ddp": "DDP",
    "zero1": "DeepSpeed ZeRO-1",
    "zero2": "DeepSpeed ZeRO-2",
    "zero3": "DeepSpeed ZeRO-3",
    "fsdp2": "FSDP2",
}
DEVICES = {"cpu": "CPU", "cuda": "GPU"}


def hardware_summary(record: RunRecord) -> tuple[str, ...]:
    """Processes, distribution strategy and device, and what generates: "2 processes", "DDP on CPU", "transformers".

    Parts missing from plan.json are omitted; () if it has none.
    """
    size = record.planned("batch.num_processes")
    parts = (plural(size, "process", "processes") if size else "", _shared(record), record.planned("backend"))
    return tuple(str(part) for part in parts if part)


def _shared(record: RunRecord) -> str:
    """A single process has no strategy: only the device."""
    device = DEVICES.get(record.planned("topology.device"), "")
    if record.planned("distributed_type") == "NO":
        return device
    shared = STRATEGIES.get(record.planned("strategy"), "")
    return " on ".join(part for part in (shared, device) if part)
