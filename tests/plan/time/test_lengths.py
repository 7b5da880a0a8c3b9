"""Expected lengths of completions of one step, against draws from the family they stand for."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from grpo_dist.plan.time import Lengths

LENGTHS = Lengths(prompt=100, mean=300, longest=1000)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_order_statistics_are_those_of_draws(rank):
    draw = random.Random(5).random
    shape = LENGTHS.longest / LENGTHS.mean - 1
    drawn = [sorted(LENGTHS.longest * draw() ** shape for _ in range(8))[rank - 1] for _ in range(4000)]
    assert LENGTHS.completion(rank, 8) == pytest.approx(fmean(drawn), rel=0.1)


@pytest.mark.parametrize("count", [10**7, 10**8, 10**9, 2**62])
def test_the_longest_of_very_many_is_the_limit(count):
    assert LENGTHS.completion(count, count) == pytest.approx(LENGTHS.longest, rel=1e-5)
