"""TRL's trainer, with less work per step and checkpoints where a run directory has them."""

from __future__ import annotations

from pathlib import Path

from grpo_dist.checkpoints import seal
from grpo_dist.training.dynamic_sampling import DynamicSampling
from grpo_dist.training.micro_batches import TightMicroBatches
from grpo_dist.training.scoring import DeferredScoring


class Trainer(DynamicSampling, TightMicroBatches, DeferredScoring):
    """`GRPOTrainer` whose checkpoints lie under `checkpoints/` and are sealed when every process has written."""

    def _get_output_dir(self, trial: object) -> str:
        return str(Path(super()._get_output_dir(trial)) / "checkpoints")

    def _save_checkpoint(self, model: object, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}")
        self.accelerator.wait_for_everyone()
