"""Whether a step, the steps between checkpoints, and the whole run finish within a job's time limit."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from grpo_dist.config import RunConfig


def seconds_of(limit: str) -> int:
    """Slurm's `--time`: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or
    days-hours:minutes:seconds."""
    days, dash, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def jobs_of(config: RunConfig, seconds: float) -> int:
    """Number of consecutive jobs for this many seconds of work; only work until the signal is kept."""
    usable = seconds_of(config.cluster.time) - config.cluster.signal_seconds
    return max(1, ceil(seconds / max(1, usable)))


def deadline_warnings(config: RunConfig, per_step: float, hours: float | None, save_steps: int) -> Iterator[str]:
    """What does not finish within `cluster.time`, and what to set.

    Args:
        per_step: seconds of an optimizer step.
        hours: of the whole run; None if its steps are not set.
    """
    limit, stated = seconds_of(config.cluster.time), config.cluster.time
    usable = limit - config.cluster.signal_seconds
    if per_step > usable:
        needed = _written(2 * per_step + config.cluster.signal_seconds)
        yield (
            f"cluster.time: one step takes {_duration(per_step)}, and a job of {stated} ends before it: no step is "
            f"ever done; --set cluster.time={needed}, or plan for a shorter step"
        )
    elif save_steps * per_step > usable:
        fewer = max(1, int(usable // per_step))
        yield (
            f"grpo.save_steps: {save_steps} steps take {_duration(save_steps * per_step)}, and a job of {stated} ends "
            f"before: only what is saved at its signal is kept; --set grpo.save_steps={fewer}"
        )
    if per_step <= usable and hours is not None and 3600 * hours > usable:
        jobs, enough = jobs_of(config, 3600 * hours), _written(3600 * hours * 1.1 + config.cluster.signal_seconds)
        yield (
            f"cluster.time: the run takes {_duration(3600 * hours)}, a job of {stated} ends before: "
            f"{_requeued(config, jobs)}; --set cluster.time={enough} runs it in one"
        )


def _requeued(config: RunConfig, jobs: int) -> str:
    most = config.cluster.max_requeues + 1
    if jobs <= most:
        return f"it is continued in {jobs} jobs, one after the other"
    return f"it needs {jobs} jobs, and cluster.max_requeues allows {most}"


def _duration(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"


def _written(seconds: float) -> str:
    """Whole hours in Slurm's format."""
    days, hours = divmod(ceil(seconds / 3600), 24)
    return f"{days}-{hours:02}:00:00" if days else f"{hours:02}:00:00"
