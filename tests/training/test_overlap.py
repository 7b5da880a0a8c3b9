"""Which batches are begun when, for servers that write them while a step is trained (`rollout.max_staleness`).

Whole runs that generate ahead are in test_rollout_metrics.py and test_vllm_runs.py.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest


class LaterBatches:
    """What a trainer asks of its rollouts, with the numbers of the steps in place of policies and prompts."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int, list[str]]] = []
        """(step that began it, step it is for, prompts)."""
        self.now = 0
        self.restored: list[str] = []

    def restore(self, checkpoint: Path) -> None:
        self.restored.append(checkpoint.parent.name)

    def sync_weights(self) -> None:
        pass

    def begin(self, step: int, prompts: list[str]) -> None:
        self.begun.append((self.now, step, prompts))


def ahead(staleness: int, *, iterations: int = 1, rank: int = 0, done: int = 0):
    """A trainer of 2 processes × 4 completions × 2 micro-batches of 10 problems in groups of 4, after `done` steps."""
    from grpo_dist.training.trainer.trainer import GeneratesAhead

    trainer = object.__new__(GeneratesAhead)
    trainer.args = SimpleNamespace(
        per_device_train_batch_size=4,
        steps_per_generation=2,
        gradient_accumulation_steps=2,
        generation_batch_size=16,
        seed=5,
        output_dir="run",
    )
    trainer.num_generations, trainer.num_iterations, trainer.shuffle_dataset = 4, iterations, True
    trainer.accelerator = SimpleNamespace(num_processes=2, process_index=rank)
    trainer.train_dataset = [{"prompt": f"p{number}"} for number in range(10)]
    trainer.state = SimpleNamespace(global_step=done, max_steps=9)
    trainer.run = SimpleNamespace(config=SimpleNamespace(rollout=SimpleNamespace(max_staleness=staleness)))
    trainer.vllm_generation = LaterBatches()
    trainer._tokenize_prompts = lambda prompts: (prompts, None, None)
    trainer._get_output_dir = lambda trial: "checkpoints"
    return trainer


def begun(trainer) -> list[tuple[int, int, list[str]]]:
    """Everything the trainer begins until its last step."""
    for step in range(trainer.state.global_step, trainer.state.max_steps):
        trainer.state.global_step = trainer.vllm_generation.now = step
        trainer._generate_ahead()
    return trainer.vllm_generation.begun


def loaded(rank: int, iterations: int) -> dict[int, list[str]]:
    """Step → the prompts that a data loader brings this process, over the epochs."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler
    from trl.trainer.utils import RepeatSampler

    sampler = RepeatSampler(range(10), 4, batch_size=4, repeat_count=2 * iterations, shuffle=True, seed=5)
    shard = BatchSamplerShard(BatchSampler(sampler, 8, drop_last=False), 2, rank)
    batches = [batch for _ in range(9) for batch in shard]
    return {step: [f"p{row}" for row in batches[2 * step]] for step in range(0, min(9, len(batches) // 2), iterations)}


@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_prompts_written_ahead_are_those_the_loader_brings(rank, iterations):
    trainer = ahead(2, iterations=iterations, rank=rank)
    assert {step: prompts for _, step, prompts in begun(trainer)} == loaded(rank, iterations)


@pytest.mark.parametrize("staleness", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_batch_is_begun_so_many_steps_before_its_own(staleness, iterations):
    found = begun(ahead(staleness, iterations=iterations))
    assert [(now, step) for now, step, _ in found] == [
        (max(0, step - staleness), step) for step in range(0, 9, iterations)
    ]


@pytest.mark.parametrize(("done", "iterations"), [(1, 1), (2, 1), (4, 1), (7, 1), (2, 2), (6, 2), (3, 3)])
def test_a_resumed_run_begins_the_batches_on_their_way_again(done, iterations):
    whole, resumed = ahead(2, iterations=iterations), ahead(2, iterations=iterations, done=done)
    found = begun(resumed)
    assert resumed.vllm_generation.restored == [f"checkpoint-{done}"]
    assert [(step, prompts) for _, step, prompts in found] == [
        (step, prompts) for _, step, prompts in begun(whole) if step >= done
    ]
    assert all(now == max(done, step - 2) for now, step, _ in found)
