"""The order of problems after a resume, over several epochs."""

from __future__ import annotations

import pytest
from trl.trainer.utils import RepeatSampler

from grpo_dist.training.trainer.trainer import ForwardedSampler


def sampler(epochs_done: int | None = None) -> RepeatSampler:
    made = RepeatSampler(range(10), mini_repeat_count=2, batch_size=3, repeat_count=1, shuffle=True, seed=5)
    if epochs_done is not None:
        made.__class__ = ForwardedSampler
        made.epochs_done = lambda: epochs_done
    return made


@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_resumed_run_draws_the_orders_of_one_never_stopped(done):
    plain, resumed = sampler(), sampler(done)
    orders = [list(plain) for _ in range(done + 2)]
    assert orders[0] != orders[1]
    assert [list(resumed) for _ in range(2)] == orders[done:]
