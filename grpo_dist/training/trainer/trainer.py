"""TRL's trainer with less work per step, checkpoints in the run directory, and completions from the planned source.

A resumed run reads its problems in the same order as an uninterrupted one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import torch
from datasets import Dataset
from transformers.trainer_utils import TrainOutput
from trl import GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer.utils import RepeatSampler

from grpo_dist.errors import RolloutsGone
from grpo_dist.plan.inputs import MOST_SEQUENCES
from grpo_dist.run.checkpoints import is_complete, note_trained, seal
from grpo_dist.training.common.backend import is_unsloth
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.adapter import copy_policies
from grpo_dist.training.rewards.silent import HearsSilence
from grpo_dist.training.rollouts.base import replaced
from grpo_dist.training.trainer.callbacks import TrainingClock
from grpo_dist.training.trainer.deferred_scoring import DeferredScoring
from grpo_dist.training.trainer.divergence import StopsWhenDiverged
from grpo_dist.training.trainer.dynamic_sampling import DynamicSampling
from grpo_dist.training.trainer.micro_batches import TightMicroBatches


class KeepsDataOrder(GRPOTrainer):
    """TRL's sampler draws one order after the other from a generator: after a resume again the first one.

    That is TRL 1.16. Without this class, a run that is resumed in its second epoch repeats the order of the first.
    """

    def _get_train_sampler(self, dataset: Any = None) -> RepeatSampler:
        sampler = super()._get_train_sampler(dataset)
        sampler.__class__ = ForwardedSampler  # whatever arguments TRL's versions pass to it
        sampler.epochs_done = lambda: self._epochs_done(len(sampler))
        return sampler

    def upcoming(self) -> Iterator[list[dict[str, Any]]]:
        """This process's rows of the next generation batch, the one after it, and so on, over all epochs.

        As TRL 1.16 samples and Accelerate 1.15 shards: a batch is repeated for each of its micro-steps, and processes
        take consecutive parts of it. In another order, what was generated ahead is refused.
        """
        args, sampler = self.args, self._get_train_sampler()
        share = args.per_device_train_batch_size * args.steps_per_generation
        repeated = share * self.accelerator.num_processes * args.steps_per_generation * self.num_iterations
        first = self.accelerator.process_index * share
        skipped = self.state.global_step // self.num_iterations % max(1, len(sampler) // repeated)
        while True:
            for batch in islice(_in_parts(iter(sampler), repeated), skipped, None):
                yield [self.train_dataset[row] for row in batch[first : first + share]]
            skipped = 0

    def _epochs_done(self, completions: int) -> int:
        """Complete passes done, each of this many completions: TRL's sampler repeats a batch for each micro-step."""
        per_step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        steps = max(1, completions // (per_step * self.accelerator.num_processes * self.args.steps_per_generation))
        return self.state.global_step // steps


def _in_parts(rows: Iterator[int], size: int) -> Iterator[list[int]]:
    while part := list(islice(rows, size)):
        yield part


class ForwardedSampler(RepeatSampler):
    """Leaves out the orders of the epochs that are done when its first is asked for.

    `RepeatSampler.__iter__` of TRL 1.16 draws `randperm(num_samples)` from its `generator` once per epoch, if
    `shuffle`. If it draws anything else, a resumed run silently reads its problems in another order.
    """

    epochs_done: Callable[[], int] | None = None

    def __iter__(self) -> Iterator[int]:
        if self.epochs_done is not None and self.shuffle:
            for _ in range(self.epochs_done()):
                torch.randperm(self.num_samples, generator=self.generator)
        self.epochs_done = None
        return super().__iter__()


BESIDES_GENERATION = ("perf/sync_seconds", "perf/canary_seconds")


class PlannedRollouts(GRPOTrainer):
    """Generates with the model itself, on the run's servers, or on its own engines; `perf/*` records the cost."""

    def __init__(self, *, run: Run, train_dataset: Dataset, **arguments: Any) -> None:
        self.run = run
        generation = partial(
            _bounded, _generation_of(run), run=run, step=lambda: self.state.global_step, dataset=train_dataset
        )
        # `GRPOTrainer.__init__` (TRL 1.16) makes whatever its module calls VLLMGeneration. If it looks elsewhere, the
        # run generates with TRL's own class, which merges the adapter and sends the whole model. On a GPU, Unsloth puts
        # the trainer into another module than TRL's.
        with replaced(sys.modules[GRPOTrainer.__module__], "VLLMGeneration", generation):
            super().__init__(train_dataset=train_dataset, **arguments)

    def train(self, *arguments: Any, **keywords: Any) -> TrainOutput:
        output = super().train(*arguments, **keywords)
        if self.use_vllm:
            self.vllm_generation.release()
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Every line has the newest policy it was trained on completions of; a step may generate none.

        In this method TRL 1.16 adds the means of `_metrics["train"]` to `logs`, then empties it. If it does so earlier,
        the line lacks `perf/policy_version`. It writes completions with the `DataFrame` of the `pd` of its module. If
        it writes them another way, a killed run may leave half a file.
        """
        if self.use_vllm and "loss" in logs:
            self._metrics["train"]["perf/policy_version"] = [self.policy_version]
        whole = SimpleNamespace(**{**vars(pandas), "DataFrame": WholeTable})
        with replaced(sys.modules[GRPOTrainer.__module__], "pd", whole):
            super().log(logs, start_time)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *arguments: Any, **keywords: Any) -> Any:
        """TRL 1.16 syncs weights and generates here, and nowhere else without tools; otherwise `perf/*` is wrong.

        `_log_completion_extra` adds a column to the completions table: one value per completion of this process.
        """
        began = time.perf_counter()
        answer = super()._generate_single_turn(prompt_ids, *arguments, **keywords)
        seconds = time.perf_counter() - began
        perf = self.vllm_generation.take_metrics() if self.use_vllm else {}
        perf.setdefault("perf/generation_seconds", seconds - sum(perf.get(name, 0.0) for name in BESIDES_GENERATION))
        for name, value in perf.items():
            self._metrics["train"][name].append(value)
        if self.use_vllm:
            self.policy_version = perf["perf/policy_version"]
            self._log_completion_extra("policy_version", [int(self.policy_version)] * len(prompt_ids))
        return answer


class GeneratesAhead(KeepsDataOrder):
    """With `rollout.max_staleness` s: at the start of step t the servers get its policy, and begin the batch of step
    t + s, which comes from it.

    Steps up to s are all begun at the start, from the first policy. After a resume, the batches on their way are begun
    again, from the policies in the checkpoint; a completion's seed belongs to its place, so they are the same.
    """

    _batches: Iterator[list[dict[str, Any]]] | None = None

    def train(self, *arguments: Any, **keywords: Any) -> TrainOutput:
        try:
            return super().train(*arguments, **keywords)
        finally:
            if self._batches is not None:
                self.vllm_generation.cancel()

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        # TRL 1.16 calls this for each micro-batch, and counts them in `_step`. If it calls it later than that, the
        # first batch is refused: it was not begun.
        starts = self._step % self.args.gradient_accumulation_steps == 0
        if starts and self.model.training and self.run.config.rollout.max_staleness:
            self._generate_ahead()
        return super()._prepare_inputs(generation_batch)

    def _generate_ahead(self) -> None:
        step, rollouts = self.state.global_step, self.vllm_generation
        if self._batches is None:
            self._batches, self._next = self.upcoming(), step
            if step:
                rollouts.restore(self._policies_of(step))
        rollouts.sync_weights()
        # TRL 1.16 syncs before it generates if this is another step. If it no longer asks, it syncs a second time.
        self._last_loaded_step = step
        while self._next <= step + self.run.config.rollout.max_staleness and self._next < self.state.max_steps:
            prompts = [row["prompt"] for row in next(self._batches)]
            rollouts.begin(self._next, self._tokenize_prompts(prompts)[0])
            self._next += self.num_iterations

    def _policies_of(self, step: int) -> Path:
        return Path(self._get_output_dir(None)) / f"checkpoint-{step}" / "policies"

    def _keep_policies(self) -> None:
        """Put the policies of batches on their way into the checkpoint that was just saved."""
        step = self.state.global_step
        if self._batches is not None:
            copy_policies(self.vllm_generation.policies_before(step), self._policies_of(step))


class WholeTable(pandas.DataFrame):
    """A table whose Parquet file appears whole or not at all."""

    def to_parquet(self, path: str, *arguments: Any, **keywords: Any) -> None:
        draft = Path(path).with_name(f".{Path(path).name}")  # the same name again: a repeated step replaces it
        try:
            super().to_parquet(draft, *arguments, **keywords)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _bounded(build: type[VLLMGeneration], *arguments: Any, max_num_seqs: int | None = None, **keywords: Any) -> Any:
    """With the planned number of concurrent sequences: TRL would run all of a step, which vLLM refuses above
    `max_num_batched_tokens`."""
    bound = None if max_num_seqs is None else min(max_num_seqs, MOST_SEQUENCES)
    return build(*arguments, max_num_seqs=bound, **keywords)


def _generation_of(run: Run) -> type[VLLMGeneration]:
    """The class that replaces TRL's; imported only when needed, because it imports the engine."""
    if not run.plan.uses_vllm:
        return VLLMGeneration
    if is_unsloth(run):
        from grpo_dist.training.rollouts.merged import SharedRollouts

        return SharedRollouts
    if not run.config.rollout.syncs_adapter:
        from grpo_dist.training.rollouts.merged import MergedRollouts

        return MergedRollouts
    if run.plan.topology.colocated:
        from grpo_dist.training.rollouts.colocate import ColocatedRollouts

        return ColocatedRollouts
    from grpo_dist.training.rollouts.server import ServerRollouts

    return ServerRollouts


class Trainer(
    StopsWhenDiverged,
    GeneratesAhead,
    HearsSilence,
    DynamicSampling,
    TightMicroBatches,
    DeferredScoring,
    PlannedRollouts,
):
    """`GRPOTrainer` whose checkpoints are under `checkpoints/` and are sealed once every process has written.

    Args:
        clock: how long the run has trained.
    """

    def __init__(self, *arguments: Any, clock: TrainingClock, **keywords: Any) -> None:
        self.clock = clock
        super().__init__(*arguments, **keywords)
        self.add_callback(clock)

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        # TRL 1.16 generates inside this method. If the error comes from elsewhere, nothing is saved before the run
        # ends.
        try:
            return super().training_step(*arguments, **keywords)
        except RolloutsGone:  # on every process, before anything of the step is computed
            self._save_now()
            raise

    def _save_now(self) -> None:
        """Save the steps that are done; a checkpoint of this step may already exist."""
        step = self.state.global_step
        if step and not is_complete(Path(self._get_output_dir(None)) / f"checkpoint-{step}"):
            self._save_checkpoint(self.model, None)

    def _get_output_dir(self, trial: object) -> str:
        # Transformers 5.17 asks here where to write checkpoints and where to delete old ones. If it stops asking,
        # checkpoints land in the run directory itself, and a resume does not find them.
        return str(Path(super()._get_output_dir(trial)) / "checkpoints")

    def create_model_card(self, *_arguments: Any, **_keywords: Any) -> None:
        """None: TRL's would be in the run directory and name no base. An export brings its own.

        TRL 1.16 calls this before each checkpoint. Under another name it would write README.md into the run directory.
        """

    def _save_checkpoint(self, model: object, trial: object) -> None:
        # When this returns, Transformers 5.17 has written every file of this process. If it writes one later, an
        # incomplete checkpoint gets its seal; if it saves another way, none gets one, and a resume starts from step 0.
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoint = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            note_trained(checkpoint, self.clock.seconds)
            self._keep_policies()
            seal(checkpoint)
        self.accelerator.wait_for_everyone()
