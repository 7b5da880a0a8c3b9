"""`… fixed_completions.py RUN`: the train stage with completions that follow from prompt and place in the group.

Only generation is replaced; prompts, rewards, advantages, loss, backward pass and update are the trainer's own.
"""

from __future__ import annotations

import random
from typing import Any

from trl import GRPOTrainer

from grpo_dist.training.stage import main
from grpo_dist.training.train import train

Ids = list[int]


def completions(trainer: GRPOTrainer, prompt_ids: list[Ids], *_: Any, **__: Any) -> tuple[list[Ids], None]:
    """In place of `GRPOTrainer._generate_single_turn`.

    A process holds a contiguous slice of the step's completions, and a group is `num_generations` consecutive ones.
    """
    first = trainer.accelerator.process_index * len(prompt_ids)
    return [_completion(trainer, ids, (first + i) % trainer.num_generations) for i, ids in enumerate(prompt_ids)], None


def _completion(trainer: GRPOTrainer, prompt: Ids, place: int) -> Ids:
    """Random tokens, a random number of them, and the end token."""
    rng = random.Random(f"{prompt} {place}")
    tokenizer = trainer.processing_class
    tokens = [rng.randrange(10, len(tokenizer)) for _ in range(rng.randint(2, trainer.max_completion_length - 1))]
    return [*tokens, tokenizer.eos_token_id]


if __name__ == "__main__":
    GRPOTrainer._generate_single_turn = completions
    main(train)
