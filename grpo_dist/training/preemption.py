"""Stopping training when it is asked to: all processes at the same step, after one checkpoint."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from grpo_dist.cluster.stop import note_stop, stop_requested
from grpo_dist.run_directory import ATTEMPT_VARIABLE, RunDirectory


class StopWhenAsked(TrainerCallback):
    """The main process looks for the request at the end of each step; the others hear of it in that moment.

    Not inside a generation window, from which a run cannot be continued.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.state = PartialState()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        aligned = state.global_step % args.num_iterations == 0
        if aligned and state.global_step < state.max_steps and self._all_stop():
            control.should_save = control.should_training_stop = True

    def _all_stop(self) -> bool:
        asked = self.state.is_main_process and stop_requested(self.run) is not None
        if self.state.num_processes == 1:
            return asked
        told = torch.tensor([asked], dtype=torch.int32, device=self.state.device)
        torch.distributed.broadcast(told, src=0)
        return bool(told.item())


class Heartbeat(TrainerCallback):
    """`heartbeat.json`: the last step done, for whoever watches the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            draft = self.path.with_name(f".{self.path.name}")
            draft.write_text(json.dumps({"step": state.global_step, "max_steps": state.max_steps, "time": time.time()}))
            draft.replace(self.path)  # no fsync: a step must not wait for a disk


def note_stopped(step: int) -> None:
    """Tell whoever started this attempt that training stopped after a checkpoint, unfinished."""
    if attempt := os.environ.get(ATTEMPT_VARIABLE):
        note_stop(Path(attempt), step)
