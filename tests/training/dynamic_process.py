"""`dynamic_process.py MODEL DIRECTORY`: steps of two processes; each writes what it saw.

Two with dynamic sampling, then, for each of BESIDE_TRL, TRL's own and ours.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from ranks import in_ranks
from stub_rollouts import Ours, Steps, checksum, make_trainer, take_steps
from trl import GRPOTrainer

GROUP = 4
"""Three groups of four: with two processes the second spans both."""
BESIDE_TRL = (
    {"loss_type": "dapo", "vllm_importance_sampling_mode": "token_truncate"},
    {"loss_type": "grpo", "scale_rewards": "batch", "off_policy_mask_threshold": 0.02},
    {"loss_type": "luspo", "importance_sampling_level": "sequence", "mask_truncated_completions": True},
    {"loss_type": "sapo", "num_iterations": 2, "max_steps": 4},
    {"loss_type": "dr_grpo", "scale_rewards": "none", "steps_per_generation": 2},
    {"loss_type": "bnpo", "beta": 0.05, "top_entropy_quantile": 0.4},
)


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
    """Per step: the batch this process trains on, the completions table, tokens it generated, gradients and logs."""
    batches, tables, generated = [], [], []

    class Watched(Ours):
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            completions, logps = super()._generate_single_turn(*args, **kwargs)
            generated[-1] += sum(map(len, completions))
            return completions, logps

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            generated.append(0)
            batches.append(super()._generate_and_score_completions(inputs))
            tables.append({column[-1]: list(values) for column, values in self._table().items()})
            return batches[-1]

    own = {"max_num_gen_batches": max_num_gen_batches}
    trainer = make_trainer(Watched, model, output, reward=reward, prompts=prompts, own=own, **batch_of(processes))
    steps = take_steps(trainer)
    shown = {"batches": batches, "tables": tables, "generated": generated}
    return {**shown, "gradients": steps.gradients, "logs": steps.logs}


def beside_trl(model: Path, output: Path, arguments: dict[str, Any]) -> tuple[Steps, Steps]:
    """Steps of TRL's trainer and of ours."""
    kinds, batch = (GRPOTrainer, Ours), {"per_device_train_batch_size": 2}
    stock, ours = (take_steps(make_trainer(kind, model, output, **batch, **arguments)) for kind in kinds)
    return stock, ours


def write(model: Path, directory: Path) -> None:
    state = PartialState(cpu=True)
    found = sampled(model, directory, state.num_processes, max_num_gen_batches=8)
    found["beside TRL"] = [beside_trl(model, directory, arguments) for arguments in BESIDE_TRL]
    torch.save(found, directory / f"{state.process_index}.pt")


if __name__ == "__main__":
    in_ranks(2, lambda: write(*map(Path, sys.argv[1:])))
