from __future__ import annotations

import pytest

from grpo_dist.evaluation.comparison import Answered, Problem, compare
from grpo_dist.evaluation.statistics import Bootstrap

BOOTSTRAP = Bootstrap(resamples=2000, confidence=0.95, seed=0)


def answered(correct: bool, samples_correct: int = 0, samples: int = 4) -> Answered:
    return Answered("right" if correct else "wrong", correct, 10, False, samples_correct, samples)


def compared(base, trained):
    problems = [Problem(f"{i}+{i}=", str(2 * i)) for i in range(len(base))]
    return compare(problems, base, trained, BOOTSTRAP)


def test_accuracy_counts_and_flips():
    base = [answered(True, 4), answered(False, 1), answered(False, 0), answered(True, 2)]
    trained = [answered(True, 4), answered(True, 3), answered(True, 0), answered(False, 2)]
    result = compared(base, trained)
    assert result["base"]["greedy_accuracy"]["estimate"] == 0.5
    assert result["trained"]["greedy_accuracy"]["estimate"] == 0.75
    assert result["difference"]["estimate"] == 0.25
    assert result["trained"]["mean_at_k"]["estimate"] == (4 + 3 + 0 + 2) / 16
    assert result["trained"]["pass_at_k"]["estimate"] == 0.75
    assert (result["gained"], result["lost"]) == (2, 1)
    assert result["flipped"]["lost"] == [{"prompt": "3+3=", "answer": "6", "base": "right", "trained": "wrong"}]
    assert result["per_problem"][1]["base"] == {"greedy_correct": False, "samples_correct": 1, "greedy": "wrong"}


def test_without_samples_there_is_no_pass_at_k():
    result = compared([answered(True, 0, 0)], [answered(True, 0, 0)])
    assert result["k"] == 0
    assert result["base"]["mean_at_k"] is None
    assert result["base"]["pass_at_k"] is None


def test_the_paired_interval_is_narrower_than_two_separate_ones():
    base = [answered(i % 2 == 0) for i in range(200)]
    trained = [answered(i % 2 == 0 or i % 20 == 1) for i in range(200)]
    result = compared(base, trained)
    width = {
        name: result[name]["greedy_accuracy"]["high"] - result[name]["greedy_accuracy"]["low"]
        for name in ("base", "trained")
    }
    assert result["difference"]["estimate"] == pytest.approx(0.05)
    assert result["difference"]["high"] - result["difference"]["low"] < min(width.values())
    assert result["difference"]["low"] > 0


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Bernoulli(0.7) over 100 problems, 300 times: a 95 % interval misses about 15 times."""
    import numpy as np

    draws = np.random.default_rng(1).random((300, 100)) < 0.7
    intervals = [Bootstrap(500, 0.95, seed).mean(list(values)) for seed, values in enumerate(draws)]
    covered = sum(interval.low <= 0.7 <= interval.high for interval in intervals)
    assert 265 <= covered <= 299


def test_the_same_seed_gives_the_same_interval():
    values = [i % 7 for i in range(40)]
    assert BOOTSTRAP.mean(values) == BOOTSTRAP.mean(values)
    assert BOOTSTRAP.mean(values) != Bootstrap(2000, 0.95, 1).mean(values)
    assert BOOTSTRAP.mean([1.0, 1.0]).low == 1.0
