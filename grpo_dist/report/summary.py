"""A run in a few numbers, for programs."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from grpo_dist.report.comparison import Comparison, Interval, Scores
from grpo_dist.report.record import RunRecord
from grpo_dist.report.rollouts import rollouts
from grpo_dist.report.series import column, ends, finite, present

SCORES = ("greedy_accuracy", "mean_at_k", "pass_at_k")


def summary(record: RunRecord) -> dict[str, Any]:
    """JSON-ready; every key is always there, null where the run has not come that far.

    `reward.first` and `reward.last` are means over the first and last tenth of the steps (at least one step);
    `tokens_per_second` is the median over the steps, prompt and completion tokens; `training_seconds` is the sum of
    the step times; `distributed_type` is Accelerate's; `rollouts` is described where it is made; accuracies are
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
