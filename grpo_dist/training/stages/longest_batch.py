"""A stage of debug runs: one optimizer step with the longest prompts of a run and completions of full length."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from grpo_dist.config import RunConfig
from grpo_dist.data.json_cells import read_problems
from grpo_dist.run import metrics
from grpo_dist.run.directory import RunDirectory, write_json
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.prompts import renderer_in
from grpo_dist.training.stages.train import train

AT_LEAST = {"transformers": "min_new_tokens", "vllm": "min_tokens"}
"""Backend → its generation argument for the minimum completion length."""


def try_longest(run: Run) -> None:
    """Train that step as a separate run, and record its sizes and peak memory in the run."""
    with tempfile.TemporaryDirectory(prefix=".longest-", dir=run.directory.path) as place:
        trial = Run(RunDirectory(Path(place)), one_full_step(run.config), run.plan)
        for name in ("model", "tokenizer", "warm_start", "environment.json"):
            if (run.directory.path / name).exists():
                (trial.directory.path / name).symlink_to(run.directory.path / name)
        longest = _keep_longest(run, trial)
        train(trial)
        (step,) = metrics.read(trial.directory.metrics)
    batch = run.plan.batch
    sizes: dict[str, Any] = {
        "completions": batch.generation_batch_size,
        "per_device_train_batch_size": batch.per_device_train_batch_size,
        "prompt_tokens": longest,
        "completion_tokens": step["completions/mean_length"],
        "peak_bytes": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else None,
    }
    write_json(run.directory.longest_batch, sizes)


def one_full_step(config: RunConfig) -> RunConfig:
    """A configuration for one step in which every completion has full length and enters the loss."""
    stated = (config.grpo.model_extra or {}).get("generation_kwargs") or {}
    at_least = {AT_LEAST[config.rollout.backend]: config.grpo.max_completion_length}
    grpo = {
        "max_steps": 1,
        "max_num_gen_batches": 1,
        "mask_truncated_completions": False,
        "generation_kwargs": {**stated, **at_least},
    }
    return config.model_copy(update={"grpo": config.grpo.model_copy(update=grpo)})


def _keep_longest(run: Run, trial: Run) -> int:
    """Make the longest prompts, enough for one step, the data of the trial; returns the tokens of the longest."""
    problems = read_problems(run.directory.train_data)
    lengths = renderer_in(run).lengths(problems["prompt"][:])
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    trial.directory.train_data.parent.mkdir()
    problems.select(order[: run.plan.batch.prompts_per_step]).to_parquet(trial.directory.train_data)
    return lengths[order[0]]
