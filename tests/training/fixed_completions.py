"""`… fixed_completions.py train RUN`: the train stage; a first step's completions follow from prompt and place.

Only generation is replaced; prompts, rewards, advantages, loss, backward pass and update are the trainer's own. From
the second step on generation is too.
"""

from __future__ import annotations

import random
from typing import Any

from grpo_dist.training.common.backend import select_backend
from grpo_dist.training.common.process import Run, main

Ids = list[int]


def completions(trainer: Any, prompt_ids: list[Ids]) -> tuple[list[Ids], None]:
    """A process holds a contiguous slice of the step's completions; a group is `num_generations` consecutive ones."""
    first = trainer.accelerator.process_index * len(prompt_ids)
    return [_completion(trainer, ids, (first + i) % trainer.num_generations) for i, ids in enumerate(prompt_ids)], None


def _completion(trainer: Any, prompt: Ids, place: int) -> Ids:
    """Random tokens, a random number of them, and the end token."""
    rng = random.Random(f"{prompt} {place}")
    tokenizer = trainer.processing_class
    tokens = [rng.randrange(10, len(tokenizer)) for _ in range(rng.randint(2, trainer.max_completion_length - 1))]
    return [*tokens, tokenizer.eos_token_id]


def _train(run: Run) -> None:
    select_backend(run)

    from trl import GRPOTrainer

    from grpo_dist.training.stages.train import train

    generate = GRPOTrainer._generate_single_turn

    def fixed(trainer: GRPOTrainer, prompt_ids: list[Ids], *args: Any, **keywords: Any) -> Any:
        if trainer.state.global_step == 0:
            return completions(trainer, prompt_ids)
        return generate(trainer, prompt_ids, *args, **keywords)

    GRPOTrainer._generate_single_turn = fixed
    train(run)


if __name__ == "__main__":
    main({"train": _train})
