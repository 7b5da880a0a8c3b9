"""Callbacks of a training run: metrics and progress, warnings when nothing is being learnt, and stopping on request.

A requested stop ends all processes at the same step, after one checkpoint.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, inf
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from grpo_dist.config.base import seconds_of
from grpo_dist.errors import RunDirectoryError
from grpo_dist.progress import say, say_passing
from grpo_dist.run import metrics
from grpo_dist.run.control import note_stop, stop_requested
from grpo_dist.run.directory import ATTEMPT_VARIABLE, RunDirectory
from grpo_dist.text import two_decimals

PATIENCE = 3
"""Consecutive logged steps before a warning."""


@dataclass(frozen=True)
class Sign:
    """A range of a metric that deserves a warning."""

    metric: str
    text: str
    at_least: float = -inf
    at_most: float = inf
    correction: str = ""
    """Prefix of `vllm_importance_sampling_mode` for which it applies."""

    def shows(self, value: float | None) -> bool:
        return value is not None and self.at_least <= value <= self.at_most


SIGNS = (
    Sign(
        "frac_reward_zero_std",
        "in every group all completions had the same reward: nothing to learn from, or nothing left; if the reward is "
        "not yet what you want, look into completions/, then try other problems or rewards, or a higher temperature",
        at_least=1.0,
    ),
    Sign(
        "completions/clipped_ratio",
        "half of the completions or more were cut off at the length limit: an answer after the cut cannot be paid; "
        "raise grpo.max_completion_length",
        at_least=0.5,
    ),
    Sign(
        "sampling/effective_sample_size",
        "importance-sampling correction left an effective sample of half of the completions or less: over a whole "
        "completion, rounding alone makes the ratio large or nearly 0; "
        "set grpo.vllm_importance_sampling_mode to token_truncate",
        at_most=0.5,
        correction="sequence_",
    ),
    Sign(
        "sampling/effective_sample_size",
        "importance-sampling correction left an effective sample of half of the tokens or less: the engines sample "
        "from another distribution than the one that is trained; compare perf/canary_difference with earlier steps, "
        "leave out grpo.top_p, grpo.top_k and grpo.min_p, set grpo.num_iterations to 1, and lower "
        "rollout.max_staleness",
        at_most=0.5,
        correction="token_",
    ),
)


class Alerts:
    """Reports each sign once, after PATIENCE consecutive logged steps.

    Args:
        correction: TRL's `vllm_importance_sampling_mode`.
    """

    def __init__(self, correction: str) -> None:
        self.signs = [sign for sign in SIGNS if correction.startswith(sign.correction)]
        self.streaks: Counter[str] = Counter()
        self.told: set[str] = set()

    def of(self, logs: Mapping[str, Any]) -> Iterator[str]:
        """The warnings that the metrics of one more step give rise to."""
        for sign in self.signs:
            metric = sign.metric
            self.streaks[metric] = self.streaks[metric] + 1 if sign.shows(logs.get(metric)) else 0
            if self.streaks[metric] == PATIENCE and metric not in self.told:
                self.told.add(metric)
                yield f"warning: in the last {PATIENCE} steps, {sign.text}"


class StepRecorder(TrainerCallback):
    """Writes each logged step to `metrics.jsonl`, with throughput added to TRL's metrics, and reports to the terminal.

    `perf/tokens_per_second` counts prompt and completion tokens of all processes over the wall time since the previous
    line; `perf/prompt_tokens_per_second` and `perf/completion_tokens_per_second` are its parts. All of them include
    training time. `perf/idle_share` is the part of that time in which training waited for completions and syncs, 0 to
    1.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.began = self.last_time = time.monotonic()
        self.first_step = self.last_step = state.global_step
        self.last_tokens = state.num_input_tokens_seen
        self.alerts = Alerts(args.vllm_importance_sampling_mode)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        if "loss" not in logs:  # the summary at the end of training
            return
        # `GRPOTrainer.log` (TRL 1.16) has merged its metrics into `logs`, and Transformers 5.17 hands this one dict to
        # all of `CallbackHandler.callbacks`, so what is added here reaches the trackers. With a copy for each, trackers
        # lack `perf/*`.
        logs.update(self._throughput(args, state, logs))
        if state.is_world_process_zero:
            metrics.append(self.path, {"step": state.global_step, "time": time.time(), **logs})
            say_passing(self._line(state, logs))
            for alert in self.alerts.of(logs):
                say(alert)

    def _throughput(self, args: TrainingArguments, state: TrainerState, logs: dict[str, Any]) -> dict[str, float]:
        now = time.monotonic()
        # Completions serve `num_iterations` steps, of which the first generates them.
        rounds = _windows(state.global_step, args) - _windows(self.last_step, args)
        seconds, tokens = now - self.last_time, state.num_input_tokens_seen - self.last_tokens
        self.last_time, self.last_step, self.last_tokens = now, state.global_step, state.num_input_tokens_seen
        first = (logs.get("completions/mean_length") or 0.0) * args.generation_batch_size
        completion_tokens = (first + logs.get("sampling/further_completion_tokens", 0.0)) * rounds
        generation = logs.get("perf/wait_seconds", logs.get("perf/generation_seconds", 0.0))
        waited = (generation + logs.get("perf/sync_seconds", 0.0)) * rounds
        return {
            "perf/tokens_per_second": tokens / seconds,
            "perf/prompt_tokens_per_second": (tokens - completion_tokens) / seconds,
            "perf/completion_tokens_per_second": completion_tokens / seconds,
            "perf/idle_share": waited / seconds,
        }

    def _line(self, state: TrainerState, logs: dict[str, Any]) -> str:
        done = state.global_step - self.first_step
        left = (time.monotonic() - self.began) / done * (state.max_steps - state.global_step)
        return (
            f"step {state.global_step}/{state.max_steps}"
            f" · reward {two_decimals(logs.get('reward'))} ± {two_decimals(logs.get('reward_std'))}"
            f" · clipped {_percent(logs.get('completions/clipped_ratio'))}"
            f" · {logs['perf/tokens_per_second']:,.0f} tokens/s"
            f" · {timedelta(seconds=round(left))} left"
        )


def _windows(step: int, args: TrainingArguments) -> int:
    """Number of generations started by the end of a step."""
    return ceil(step / args.num_iterations)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


class TrainingClock(TrainerCallback):
    """Seconds from the start of training, those of earlier attempts included; loading and waiting between attempts are
    not.

    Args:
        before: seconds of the earlier attempts.
        limit: `grpo.max_time`.
    """

    def __init__(self, before: float, limit: str | None) -> None:
        self.before, self.limit = before, limit
        self.began: float | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + (0.0 if self.began is None else time.monotonic() - self.began)

    @property
    def over(self) -> bool:
        """Whether the time of the run is over."""
        return is_over(self.seconds, self.limit)


def is_over(seconds: float, limit: str | None) -> bool:
    """Whether a run has trained for as long as `grpo.max_time` allows."""
    return limit is not None and seconds >= seconds_of(limit)


class StopWhenAsked(TrainerCallback):
    """The main process checks clock and stop request at the end of each step and tells the others at once.

    Not inside a generation window, from which a run cannot be resumed.
    """

    def __init__(self, run: RunDirectory, clock: TrainingClock) -> None:
        self.run, self.clock = run, clock
        self.state = PartialState()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        aligned = state.global_step % args.num_iterations == 0
        if aligned and state.global_step < state.max_steps and self._all_stop():
            control.should_save = control.should_training_stop = True

    def _all_stop(self) -> bool:
        asked = self.state.is_main_process and (self.clock.over or stop_requested(self.run) is not None)
        if self.state.num_processes == 1:
            return asked
        told = torch.tensor([asked], dtype=torch.int32, device=self.state.device)
        torch.distributed.broadcast(told, src=0)
        return bool(told.item())


class Heartbeat(TrainerCallback):
    """`heartbeat.json`: the last step done, for the processes that watch the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            draft = self.path.with_name(f".{self.path.name}")
            told = json.dumps({"step": state.global_step, "max_steps": state.max_steps, "time": time.time()})
            try:
                draft.write_text(told)
                draft.replace(self.path)  # no fsync: a step must not wait for a disk
            except FileNotFoundError as error:  # before a checkpoint would make it anew
                raise RunDirectoryError(
                    f"{self.path.parent}: the run directory is gone", hint="put it back, then continue the run"
                ) from error


def note_stopped(step: int) -> None:
    """Tell the parent process that training stopped after a checkpoint, unfinished."""
    if attempt := os.environ.get(ATTEMPT_VARIABLE):
        note_stop(Path(attempt), step)
