"""`torchrun … dynamic_process.py MODEL DIRECTORY`: two steps with dynamic sampling; each process writes what it saw."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from stub_rollouts import Ours, checksum, make_trainer, take_steps

GROUP = 4
"""Three groups of four: with two processes the second spans both."""


def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
    """Two prompts of three have nothing to teach."""
    return [0.0 if number(prompt) % 3 else score for prompt, score in zip(prompts, checksum(completions), strict=True)]


def number(prompt: Any) -> int:
    """The second addend, which tells the prompts of `additions` apart."""
    return int(prompt[0]["content"].rstrip("=").split("+")[1])


def batch_of(processes: int) -> dict[str, int]:
    micro_batches = 6 // processes
    return {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": micro_batches,
        "steps_per_generation": micro_batches,
        "num_generations": GROUP,
    }


def sampled(model: Path, output: Path, processes: int, *, max_num_gen_batches: int, prompts: int = 32) -> dict:
    """Per step: the batch this process trains on, the completions table, gradients and logs."""
    batches, tables = [], []

    class Watched(Ours):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            batches.append(super()._generate_and_score_completions(inputs))
            tables.append({column[-1]: list(values) for column, values in self._table().items()})
            return batches[-1]

    own = {"max_num_gen_batches": max_num_gen_batches}
    trainer = make_trainer(Watched, model, output, reward=reward, prompts=prompts, own=own, **batch_of(processes))
    steps = take_steps(trainer)
    return {"batches": batches, "tables": tables, "gradients": steps.gradients, "logs": steps.logs}


if __name__ == "__main__":
    state = PartialState(cpu=True)
    found = sampled(Path(sys.argv[1]), Path(sys.argv[2]), state.num_processes, max_num_gen_batches=8)
    torch.save(found, Path(sys.argv[2]) / f"{state.process_index}.pt")
