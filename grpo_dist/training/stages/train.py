"""The train stage: GRPO from the prepared data to a trained adapter."""

from __future__ import annotations

import pickle
import shlex
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from safetensors import SafetensorError
from transformers import AutoTokenizer, PrinterCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from grpo_dist.data.json_cells import read_problems
from grpo_dist.errors import ModelError
from grpo_dist.launch.open import planned_steps
from grpo_dist.progress import say
from grpo_dist.rewards.load import load_rewards
from grpo_dist.run import metrics
from grpo_dist.run.checkpoints import (
    damaged_after,
    discard_after,
    newest_complete,
    newest_first,
    step_of,
    trained_seconds,
)
from grpo_dist.training.common.process import Run
from grpo_dist.training.common.world import check_world, keep_to_gloo
from grpo_dist.training.models.trainable import trainable
from grpo_dist.training.rewards.watch import RewardWatch
from grpo_dist.training.trainer.arguments import grpo_arguments
from grpo_dist.training.trainer.callbacks import (
    Heartbeat,
    StepRecorder,
    StopWhenAsked,
    TrainingClock,
    is_over,
    note_stopped,
)
from grpo_dist.training.trainer.divergence import check_sound
from grpo_dist.training.trainer.trainer import Trainer


def train(run: Run) -> None:
    """Train from the newest complete checkpoint, or from the start, and save the adapter."""
    if run.plan.topology.on_cpu and run.plan.distributed_type == "DEEPSPEED":
        keep_to_gloo()
    check_world(run.plan)
    checkpoint = _newest(run)
    if checkpoint is None or not _is_last(checkpoint, run):
        checkpoint = _train_from(run, checkpoint)
    if not PartialState().is_main_process:
        return
    if checkpoint is None or not _is_last(checkpoint, run, trained=True):
        note_stopped(0 if checkpoint is None else step_of(checkpoint))
        return
    if is_over(trained_seconds(checkpoint), run.config.grpo.max_time):
        say(f"grpo.max_time is over: training ends after step {step_of(checkpoint)}; a later --resume may raise it")
    _keep_adapter(checkpoint, run.directory.adapter)
    shutil.rmtree(run.directory.policies, ignore_errors=True)


def _train_from(run: Run, checkpoint: Path | None) -> Path | None:
    """Returns the newest checkpoint: that of the last step unless training was told to stop."""
    if checkpoint is not None:
        with _loading(checkpoint):
            check_sound(checkpoint)
    trainer = _trainer(run, TrainingClock(trained_seconds(checkpoint), run.config.grpo.max_time))
    if trainer.accelerator.is_main_process:
        done = 0 if checkpoint is None else step_of(checkpoint)
        for damaged, wrong in damaged_after(run.directory.checkpoints, done):
            say(f"warning: {damaged} is damaged ({wrong}); training continues from step {done} instead")
        discard_after(run.directory.checkpoints, done)
        metrics.truncate_after(run.directory.metrics, done)
        say(f"resuming after step {done}" if done else _opening(run))
    trainer.accelerator.wait_for_everyone()
    watch = RewardWatch(trainer.accelerator.process_index, run.config.cluster.stall_seconds)
    # TRL 1.16 reads `reward_funcs` for every batch. If it keeps its first list, a reward that hangs is not noticed.
    trainer.reward_funcs = [replace(reward, watch=watch) for reward in trainer.reward_funcs]
    try:
        with _loading(checkpoint):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        watch.end_leftovers()
    return newest_complete(run.directory.checkpoints)


@contextmanager
def _loading(checkpoint: Path | None) -> Iterator[None]:
    """A damaged file of a checkpoint that earlier versions sealed without digests is told by its reader alone.

    Raises:
        ModelError: PyTorch or safetensors cannot read it. PyTorch's own advice, to run the file's code, is left out.
    """
    try:
        yield
    except (pickle.UnpicklingError, SafetensorError):
        if checkpoint is None:
            raise
        raise ModelError(
            f"{checkpoint}: damaged, it cannot be loaded",
            hint=f"rm -r {shlex.quote(str(checkpoint))}; training then continues from the one before",
        ) from None


def _trainer(run: Run, clock: TrainingClock) -> Trainer:
    rewards = load_rewards(run.config.rewards.functions)
    # Before the model: under ZeRO-3 it makes each process load only its own shard.
    arguments = grpo_arguments(run, [reward.weight for reward in rewards])
    warm = run.directory.warm_start
    trainer = Trainer(
        run=run,
        **trainable(run, warm if warm.exists() else None),
        reward_funcs=list(rewards),
        args=arguments,
        train_dataset=read_problems(run.directory.train_data),
        processing_class=AutoTokenizer.from_pretrained(run.directory.tokenizer),
        max_num_gen_batches=run.config.grpo.max_num_gen_batches,
        clock=clock,
    )
    trainer.remove_callback(PrinterCallback)
    # First, so that the trackers behind it receive what it adds: Transformers 5.17 calls them in the order of this
    # list, and has no public way to put one in front.
    trainer.callback_handler.callbacks.insert(0, StepRecorder(run.directory.metrics))
    trainer.add_callback(Heartbeat(run.directory.heartbeat))
    trainer.add_callback(StopWhenAsked(run.directory, clock))
    return trainer


def _opening(run: Run) -> str:
    batch = run.plan.batch
    return (
        f"training: {batch.prompts_per_step} prompts × {batch.num_generations} completions per step, "
        f"{batch.num_processes} process{'es' if batch.num_processes > 1 else ''} × "
        f"{batch.per_device_train_batch_size} completions × {batch.gradient_accumulation_steps} accumulated"
    )


def _newest(run: Run) -> Path | None:
    """The checkpoint to resume from: if a run was extended, its last one may be inside a generation window."""
    there = newest_first(run.directory.checkpoints)
    return next((one for one in there if _is_last(one, run) or _ends_window(one, run)), None)


def _ends_window(checkpoint: Path, run: Run) -> bool:
    return step_of(checkpoint) % run.config.grpo.num_iterations == 0


def _is_last(checkpoint: Path, run: Run, *, trained: bool = False) -> bool:
    """Whether nothing is left to train: the steps are done, or the time is over.

    Args:
        trained: this attempt has trained, so the checkpoint knows the number of steps. One of an earlier attempt may
            have been to end sooner.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    steps = (None if trained else planned_steps(run.config, run.directory)) or state.max_steps
    return state.global_step >= steps or is_over(trained_seconds(checkpoint), run.config.grpo.max_time)


def _keep_adapter(checkpoint: Path, adapter: Path) -> None:
    """Copy the adapter out of the last checkpoint; atomically."""
    draft = adapter.with_name(f".adapter.{uuid.uuid4().hex[:8]}")
    draft.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy2(checkpoint / name, draft / name)
    draft.rename(adapter)
