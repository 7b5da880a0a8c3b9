"""The whole of what a user states."""

from __future__ import annotations

from typing import Literal

from grpo_dist.config.cluster import ClusterSection, DistributedSection, RolloutSection
from grpo_dist.config.data import DataSection
from grpo_dist.config.evaluation import EvaluationSection
from grpo_dist.config.grpo import GrpoSection
from grpo_dist.config.model import LoraSection, ModelSection, WarmStartSection
from grpo_dist.config.rewards import RewardsSection
from grpo_dist.config.section import Section

Tracker = Literal["trackio", "tensorboard", "wandb"]


class RunConfig(Section):
    """One run: what to train, and what there is to train it on. Nothing is derived here."""

    model: ModelSection
    lora: LoraSection = LoraSection()
    data: DataSection
    rewards: RewardsSection = RewardsSection()
    warm_start: WarmStartSection | None = None
    """Supervised warm start for the format; null goes straight to GRPO."""
    grpo: GrpoSection = GrpoSection()
    rollout: RolloutSection = RolloutSection()
    distributed: DistributedSection = DistributedSection()
    cluster: ClusterSection = ClusterSection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: tuple[Tracker, ...] = ()
    """Experiment trackers that receive the metrics beside `metrics.jsonl`."""
