"""TRL's trainer, with less work per step and checkpoints where a run directory has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from grpo_dist.checkpoints import is_complete, seal
from grpo_dist.errors import RolloutsGone
from grpo_dist.training.data_order import KeepsDataOrder
from grpo_dist.training.divergence import StopsWhenDiverged
from grpo_dist.training.dynamic_sampling import DynamicSampling
from grpo_dist.training.micro_batches import TightMicroBatches
from grpo_dist.training.planned_rollouts import PlannedRollouts
from grpo_dist.training.scoring import DeferredScoring
from grpo_dist.training.silent_rewards import HearsSilence


class Trainer(
    StopsWhenDiverged,
    KeepsDataOrder,
    HearsSilence,
    DynamicSampling,
    TightMicroBatches,
    DeferredScoring,
    PlannedRollouts,
):
    """`GRPOTrainer` whose checkpoints lie under `checkpoints/` and are sealed when every process has written."""

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        try:
            return super().training_step(*arguments, **keywords)
        except RolloutsGone:  # on every process alike, before anything of the step was computed
            self._save_now()
            raise

    def _save_now(self) -> None:
        """Keep the steps that are done; a checkpoint of this very step may stand already."""
        step = self.state.global_step
        if step and not is_complete(Path(self._get_output_dir(None)) / f"checkpoint-{step}"):
            self._save_checkpoint(self.model, None)

    def _get_output_dir(self, trial: object) -> str:
        return str(Path(super()._get_output_dir(trial)) / "checkpoints")

    def create_model_card(self, *_arguments: Any, **_keywords: Any) -> None:
        """None: TRL's would lie in the run directory and name no base. An export brings its own."""

    def _save_checkpoint(self, model: object, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}")
        self.accelerator.wait_for_everyone()
