"""What is written and said while training goes on."""

from __future__ import annotations

import time
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from grpo_dist import metrics
from grpo_dist.progress import say, say_passing
from grpo_dist.training.alerts import Alerts


class StepRecorder(TrainerCallback):
    """Writes each logged step to `metrics.jsonl`, with throughput beside TRL's metrics, and tells the terminal.

    `perf/tokens_per_second` counts prompt and completion tokens of all processes over the wall time since the line
    before; `perf/prompt_tokens_per_second` and `perf/completion_tokens_per_second` are its parts. All include training
    time. `perf/idle_share` is the part of that time in which training waited for completions and syncs, 0 to 1.
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
        waited = (logs.get("perf/generation_seconds", 0.0) + logs.get("perf/sync_seconds", 0.0)) * rounds
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
            f" · reward {_number(logs.get('reward'))} ± {_number(logs.get('reward_std'))}"
            f" · clipped {_percent(logs.get('completions/clipped_ratio'))}"
            f" · {logs['perf/tokens_per_second']:,.0f} tokens/s"
            f" · {timedelta(seconds=round(left))} left"
        )


def _windows(step: int, args: TrainingArguments) -> int:
    """Generations begun up to the end of a step."""
    return ceil(step / args.num_iterations)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
