"""Micro-batches as they are cut, against random lengths that really are sorted and cut."""

from __future__ import annotations

import random

import pytest
from timing_setups import QWEN3_4B

from grpo_dist.plan.specs.hardware import gpu
from grpo_dist.plan.time import Lengths, training_time

ROUNDS = 40


def simulated(mean: float, longest: int, count: int, batch: int, *, sort: bool) -> float:
    """Tokens of the completions of a step, each micro-batch padded to its longest."""
    dice, total = random.Random(1), 0.0
    for _ in range(ROUNDS):
        lengths = [longest * dice.random() ** (longest / mean - 1) for _ in range(count)]
        lengths.sort(reverse=True) if sort else None
        total += sum(batch * max(lengths[first : first + batch]) for first in range(0, count, batch))
    return total / ROUNDS


@pytest.mark.parametrize("mean", [500, 1000, 3584, 6000])
@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize(("padding", "sort"), [("step", True), ("batch", False)])
def test_tokens_are_those_of_cut_micro_batches(mean, batch, padding, sort):
    lengths = Lengths(prompt=0, mean=mean, longest=7168)
    computed = training_time(QWEN3_4B, gpu("h100"), lengths, completions=64, micro_batch=batch, padding=padding).tokens
    assert computed == pytest.approx(simulated(mean, 7168, 64, batch, sort=sort), rel=0.06)


def test_many_micro_batches_are_sampled():
    lengths = Lengths(prompt=100, mean=2000, longest=7168, longest_prompt=200)
    few, many = (
        training_time(QWEN3_4B, gpu("h100"), lengths, completions=count, micro_batch=4).tokens / count
        for count in (256, 25_600)
    )
    assert many == pytest.approx(few, rel=0.05)


def test_without_cutting_all_are_as_long_as_the_longest():
    lengths = Lengths(prompt=100, mean=2000, longest=7168, longest_prompt=200)
    training = training_time(QWEN3_4B, gpu("h100"), lengths, completions=64, micro_batch=4, padding="none")
    assert training.tokens == 64 * 7368


def test_eager_attention_takes_longer_on_long_texts():
    def ratio(longest):
        lengths = Lengths(prompt=0, mean=longest, longest=longest)
        eager, sdpa = (
            training_time(QWEN3_4B, gpu("h100"), lengths, completions=8, micro_batch=8, eager=eager).seconds
            for eager in (True, False)
        )
        return eager / sdpa

    assert ratio(8192) > 2 > ratio(1024) > 1
