"""Stops diverging training with an error before anything of it is saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from trl import GRPOTrainer

from grpo_dist.errors import OF_NO_USE, TrainingDiverged
from grpo_dist.run.checkpoints import step_of
from grpo_dist.training.models.adapter import WEIGHTS

NO_PROBABILITIES = "probability tensor contains either"
"""torch's error message when it samples from NaN logits."""


class StopsWhenDiverged(GRPOTrainer):
    """Raises TrainingDiverged for a loss, a gradient or weights that are not finite; no checkpoint has them."""

    _loss = 0.0

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        # TRL 1.16 generates inside this method, and returns the loss of this process. Without this, NaN logits end the
        # run with PyTorch's traceback instead of a cause.
        try:
            loss = super().training_step(*arguments, **keywords)
        except RuntimeError as error:
            if NO_PROBABILITIES not in str(error):
                raise
            raise self._diverged("the model's probabilities are not finite") from error
        if not math.isfinite(value := loss.item()):
            self._loss = value  # reported together with the gradient, which every process has
        return loss

    def _get_grad_norm(self, *arguments: Any, **keywords: Any) -> Any:
        # Transformers 5.17 calls this on every process just before each optimizer step. If it does not, infinite
        # gradients reach the weights, and nobody notices before the next checkpoint.
        norm = super()._get_grad_norm(*arguments, **keywords)
        # A loss scale that is too high makes gradients infinite, and is lowered: such a step is left out. Accelerate
        # 1.15 has a `scaler` for float16 only. Under another name, a float16 run ends at its first step.
        scaled = getattr(self.accelerator, "scaler", None) is not None
        if not math.isfinite(self._loss):
            raise self._diverged(f"the loss is {self._loss}")
        if norm is not None and not scaled and not math.isfinite(float(norm)):
            raise self._diverged(f"the gradient's norm is {float(norm)}")
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Transformers 5.17 saves every checkpoint through this method. Another way would save NaN weights.
        unsound = torch.tensor([not self._is_sound()], device=self.accelerator.device)
        if bool(self.accelerator.gather(unsound).any()):
            raise self._diverged("the adapter holds NaN or infinity", step=self.state.global_step)
        super()._save_checkpoint(model, trial)

    def _is_sound(self) -> bool:
        trained = [parameter.detach() for parameter in self.model.parameters() if parameter.requires_grad]
        return all(bool(parameter.isfinite().all()) for parameter in trained)

    def _diverged(self, what: str, step: int | None = None) -> TrainingDiverged:
        rate = f"--set grpo.learning_rate={self.args.learning_rate / 10:.3g}"
        return TrainingDiverged(
            f"training diverged at step {step or self.state.global_step + 1}: {what}; nothing of this step was saved",
            hint=f"begin another run with a lower learning rate ({rate} --output DIR) or a lower grpo.max_grad_norm; "
            f"continuing this one with --resume {OF_NO_USE}: it repeats the same steps",
        )


def check_sound(checkpoint: Path) -> None:
    """Raises TrainingDiverged for a checkpoint whose adapter is not finite: training cannot continue from it."""
    if all(bool(tensor.isfinite().all()) for tensor in load_file(checkpoint / WEIGHTS).values()):
        return
    raise TrainingDiverged(
        f"training diverged before step {step_of(checkpoint)}: the adapter in {checkpoint} holds NaN or infinity",
        hint=f"continuing from it {OF_NO_USE}: begin another run with a lower grpo.learning_rate and --output DIR, "
        "or remove this checkpoint, and the one before is taken up",
    )
