"""Generation by the engine that Unsloth makes with the model: both hold the same weights."""

from __future__ import annotations

from grpo_dist.training.merged_rollouts import MergedRollouts


class SharedRollouts(MergedRollouts):
    """TRL's colocated generation, as Unsloth has patched it to use that engine. There is nothing to sync."""

    def take_metrics(self) -> dict[str, float]:
        return {"perf/policy_version": float(self.step())}
