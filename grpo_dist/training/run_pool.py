"""The pool of a run's servers, as its processes share it."""

from __future__ import annotations

from grpo_dist.plan.memory.rollout import RolloutSetup
from grpo_dist.rollout.pool import Pool
from grpo_dist.training.stage import Run

MOST_PER_REQUEST = 16
"""Completions of one request. A larger group is several, so that no server is left alone with a whole one."""


def has_pool(run: Run) -> bool:
    """Servers that hold the base model, with adapters beside it; merged weights take the base model's place."""
    return bool(run.plan.topology.replicas) and run.config.rollout.sync == "adapter"


def pool_of(run: Run, *, rank: int = 0, processes: int = 1) -> Pool:
    """The run's servers, for one of so many processes that ask them at a time."""
    rollout = run.config.rollout
    return Pool(
        run.directory.replicas,
        rollout.timeouts,
        rank=rank,
        completions_per_replica=max(1, RolloutSetup.max_num_seqs // processes),
        push=rollout.transport == "push",
    )
