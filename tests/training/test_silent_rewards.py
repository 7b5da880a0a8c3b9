"""Rewards that return None for every completion are named with their step."""

from __future__ import annotations

import pytest

from grpo_dist.errors import RewardError
from grpo_dist.training.rewards.silent import Silence


def test_the_third_step_without_any_reward_ends_the_run():
    silence = Silence(["mine.py:a", "b"])
    for step in (7, 8):
        [told] = silence.of([True, True], 16, step)
        assert f"reward 'mine.py:a', 'b' returned None for all 16 completions at step {step}" in told
    with pytest.raises(RewardError, match="at step 9, as in the 2 steps before"):
        list(silence.of([True, True], 16, 9))


def test_a_step_that_is_paid_begins_the_count_again():
    silence = Silence(["a"])
    for step, silent in enumerate((True, True, False, True, True)):
        list(silence.of([silent], 4, step))


def test_several_batches_of_one_step_count_once():
    silence = Silence(["a"])
    for _ in range(5):
        list(silence.of([True], 4, 0))


def test_one_function_that_is_silent_for_long_is_told_once():
    silence = Silence(["a", "b"])
    told = [line for step in range(9) for line in silence.of([True, False], 4, step)]
    assert len(told) == 1
    assert "reward 'a' returned None for all 4 completions at step 2" in told[0]
