"""TRL's trainer, with checkpoints where a run directory has them and rollouts where the plan has them."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import TrainOutput
from trl import GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from grpo_dist.checkpoints import is_complete, seal
from grpo_dist.errors import RolloutsGone
from grpo_dist.training.replaced import replaced
from grpo_dist.training.stage import Run


class Trainer(GRPOTrainer):
    """`GRPOTrainer` of a run."""

    def __init__(self, *, run: Run, train_dataset: Any, **arguments: Any) -> None:
        self.run = run
        generation = partial(_generation_of(run), run=run, step=lambda: self.state.global_step, dataset=train_dataset)
        with replaced(grpo_trainer, "VLLMGeneration", generation):
            super().__init__(train_dataset=train_dataset, **arguments)

    def train(self, *arguments: Any, **keywords: Any) -> TrainOutput:
        output = super().train(*arguments, **keywords)
        if self.use_vllm:
            self.vllm_generation.release()
        return output

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        try:
            return super().training_step(*arguments, **keywords)
        except RolloutsGone:  # on every process alike, before anything of the step was computed
            self._save_now()
            raise

    def _generate_single_turn(self, prompt_ids: list[list[int]], *arguments: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        answer = super()._generate_single_turn(prompt_ids, *arguments, **keywords)
        seconds = time.perf_counter() - began
        perf = self.vllm_generation.take_metrics() if self.use_vllm else {}
        perf["perf/generation_seconds"] = seconds - perf.get("perf/sync_seconds", 0.0)
        for name, value in perf.items():
            self._metrics["train"][name].append(value)
        if self.use_vllm:
            self._log_completion_extra("policy_version", [int(perf["perf/policy_version"])] * len(prompt_ids))
        return answer

    def _save_now(self) -> None:
        """Keep the steps that are done; a checkpoint of this very step may stand already."""
        step = self.state.global_step
        if step and not is_complete(Path(self._get_output_dir(None)) / f"checkpoint-{step}"):
            self._save_checkpoint(self.model, None)

    def _get_output_dir(self, trial: object) -> str:
        return str(Path(super()._get_output_dir(trial)) / "checkpoints")

    def _save_checkpoint(self, model: object, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}")
        self.accelerator.wait_for_everyone()


def _generation_of(run: Run) -> type[VLLMGeneration]:
    """The class that stands in for TRL's; imported where it is needed, for the engine comes with it."""
    mode = run.plan.topology.mode
    if mode == "transformers":
        return VLLMGeneration
    if run.config.rollout.sync == "merged":
        from grpo_dist.training.merged_rollouts import MergedRollouts

        return MergedRollouts
    if mode == "colocate":
        from grpo_dist.training.colocated_rollouts import ColocatedRollouts

        return ColocatedRollouts
    from grpo_dist.training.server_rollouts import ServerRollouts

    return ServerRollouts
