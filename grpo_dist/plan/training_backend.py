"""Where Unsloth cannot train: one process on one GPU is its place."""

from __future__ import annotations

from typing import NamedTuple

from grpo_dist.config import RunConfig
from grpo_dist.plan.refusal import Way
from grpo_dist.plan.topology import Topology

TRL = Way({"model.backend": "trl"})


class Obstacle(NamedTuple):
    """Why Unsloth cannot do what is planned, and what may be set instead."""

    what: str
    ways: tuple[Way, ...]


def obstacle(config: RunConfig, where: Topology) -> Obstacle | None:
    """What stands in Unsloth's way; None where nothing does, as far as it can be told without importing it.

    Sharding needs no word: it is refused for a single process whatever trains.
    """
    if where.num_processes > 1:
        one_gpu = {"cluster.nodes": 1, "cluster.gpus_per_node": 1}
        alone = Way(one_gpu if where.device == "cuda" else {"distributed.num_processes": 1})
        return Obstacle(
            f"Unsloth trains in one process, and {where.num_processes} are planned",
            (TRL, alone),
        )
    if where.mode == "server":
        return Obstacle(
            "Unsloth generates in the training process, and rollout.mode is server",
            (TRL, Way({"rollout.mode": "colocate", "rollout.replicas": "auto", "rollout.nodes": "auto"})),
        )
    if where.mode == "colocate" and where.device == "cpu":
        return Obstacle(
            "Unsloth's vLLM needs a GPU, and cluster.gpus_per_node is 0",
            (TRL, Way({"rollout.backend": "transformers"})),
        )
    return None
