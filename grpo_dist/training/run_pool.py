"""The pool of a run's servers, as its processes share it."""

from __future__ import annotations

from grpo_dist.plan.memory.rollout import RolloutSetup
from grpo_dist.rollout.pool import Pool
from grpo_dist.training.stage import Run

MOST_PER_REQUEST = 16
"""Completions of one request. A larger group is several, so that no server is left alone with a whole one."""


def pool_of(run: Run, rank: int) -> Pool:
    """The run's servers, for one of its training processes."""
    rollout, processes = run.config.rollout, run.plan.topology.num_processes
    return Pool(
        run.directory.replicas,
        rollout.timeouts,
        rank=rank,
        requests_per_replica=max(1, RolloutSetup.max_num_seqs // MOST_PER_REQUEST // processes),
        push=rollout.transport == "push",
    )
