from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.evaluation.comparison import Answered, ComparedProblem, Paired, compare


def answered(correct: bool, samples_correct: int = 0, samples: int = 4) -> Answered:
    score, mean = 1.0 if correct else 0.25, samples_correct / max(samples, 1)
    return Answered("right" if correct else "wrong", correct, 10, False, samples_correct, samples, score, mean)


def paired(rows: int, different: int | None = None) -> Paired:
    """The first `different` problems, over and over."""
    return Paired(0.95, tuple(row % (different or rows) for row in range(rows)))


def compared(base, trained, different=None):
    problems = [ComparedProblem(f"{i}+{i}=", str(2 * i)) for i in range(len(base))]
    return compare(problems, base, trained, paired(len(base), different))


def limits(interval) -> tuple[float, float]:
    return interval.low, interval.high


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
    assert result["differences"]["greedy_accuracy"] == result["difference"]
    assert result["differences"]["mean_at_k"]["estimate"] == (9 - 7) / 16
    assert result["differences"]["pass_at_k"]["estimate"] == 0.0
    assert result["flipped"]["lost"] == [{"prompt": "3+3=", "answer": "6", "base": "right", "trained": "wrong"}]
    assert result["per_problem"][1]["base"] == {
        "greedy_correct": False,
        "greedy_score": 0.25,
        "samples_correct": 1,
        "greedy": "wrong",
    }
    assert result["base"]["greedy_score"]["estimate"] > result["base"]["greedy_accuracy"]["estimate"]
    assert 0 < result["differences"]["greedy_score"]["estimate"] < result["difference"]["estimate"]
    assert result["base"]["mean_score"] == result["base"]["mean_at_k"]


def test_without_samples_there_is_no_pass_at_k():
    result = compared([answered(True, 0, 0)], [answered(True, 0, 0)])
    assert result["k"] == 0
    assert result["base"]["mean_at_k"] is None
    assert result["base"]["pass_at_k"] is None
    assert result["differences"]["mean_at_k"] is result["differences"]["pass_at_k"] is None


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


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    [(0, 4, 0.0, 0.4899), (4, 4, 0.5101, 1.0), (0, 1, 0.0, 0.7935), (81, 263, 0.2553, 0.3662), (1, 29, 0.0061, 0.1718)],
)
def test_single_outcomes_have_wilsons_interval(right, rows, low, high):
    """The last two are from Newcombe 1998, Statistics in Medicine 17:857, table I, method 3."""
    found = paired(rows).mean([1.0] * right + [0.0] * (rows - right))
    assert limits(found) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("both", "first", "second", "neither", "low", "high"),
    [(36, 12, 2, 0, 0.0569, 0.3404), (54, 0, 0, 0, -0.0664, 0.0664), (0, 30, 0, 0, 0.8395, 1.0)],
)
def test_paired_outcomes_have_newcombes_interval(both, first, second, neither, low, high):
    """Method 10 on a table of right and wrong, the first against the second."""
    pairs = [(1, 1)] * both + [(1, 0)] * first + [(0, 1)] * second + [(0, 0)] * neither
    one, other = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    assert limits(paired(len(pairs)).difference(other, one)) == pytest.approx((low, high), abs=6e-5)


def test_no_interval_is_without_width_where_all_is_alike():
    for right in (True, False):
        result = compared([answered(right, 4 * right)] * 4, [answered(right, 4 * right)] * 4)
        for name, gap in result["differences"].items():
            assert gap["low"] < -0.4 and gap["high"] > 0.4, name
            assert result["base"][name]["high"] - result["base"][name]["low"] > 0.4


def test_samples_narrow_the_interval_but_no_further_than_all_of_them():
    halves, certain = [0.5] * 39 + [0.25], [0.0, 1.0] * 20
    wide, narrow, none = paired(40).mean(certain, 8), paired(40).mean(halves, 8), paired(320).mean([0.0, 1.0] * 160)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert narrow.high - narrow.low > 0.95 * (none.high - none.low)


@pytest.mark.parametrize("samples", [1, 8])
def test_repeated_rows_narrow_nothing(samples):
    draws = np.random.default_rng(2)
    one, other = (list(draws.binomial(samples, 0.6, 20) / samples) for _ in range(2))
    once, often = paired(20), paired(100, 20)
    assert limits(often.mean(one * 5, samples)) == pytest.approx(limits(once.mean(one, samples)))
    assert limits(often.difference(one * 5, other * 5, samples)) == pytest.approx(
        limits(once.difference(one, other, samples))
    )
    mostly_one = Paired(0.95, (0,) * 81 + tuple(range(1, 20)))
    assert mostly_one.mean([1.0] * 81 + [0.0] * 19).low < 0.2


def test_the_file_says_which_rows_ask_the_same():
    result = compared([answered(True)] * 4, [answered(False)] * 4, different=2)
    assert (result["problems"], result["different_problems"]) == (4, 2)
    assert [row["problem"] for row in result["per_problem"]] == [0, 1, 0, 1]


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2)))
def test_intervals_hold_their_estimate_and_agree_with_each_other(counts):
    one, other = ([count / 4 for count in values] for values in counts)
    about = paired(len(one))
    first, second, gap = about.mean(one, 4), about.mean(other, 4), about.difference(one, other, 4)
    assert 0 <= first.low <= first.estimate <= first.high <= 1
    assert -1 <= gap.low <= gap.estimate <= gap.high <= 1
    if second.low > first.high:
        assert gap.low > 0
    back = about.difference(other, one, 4)
    assert limits(back) == pytest.approx((-gap.high, -gap.low))


@pytest.mark.parametrize(("problems", "samples"), [(10, 8), (100, 8), (60, 1)])
def test_intervals_cover_the_truth_as_often_as_they_say(problems, samples):
    """Problems of all difficulties, 600 times: a 95 % interval misses about 30 times."""
    draws, about, covered = np.random.default_rng(1), paired(problems), [0, 0]
    for _ in range(600):
        rates = draws.beta(0.5, 0.7, problems)
        one, other = draws.binomial(samples, rates), draws.binomial(samples, (rates + 0.2) / 1.2)
        first = about.mean(one / samples, samples)
        gap = about.difference(one / samples, other / samples, samples)
        covered[0] += first.low <= 0.5 / 1.2 <= first.high
        covered[1] += gap.low <= (0.5 / 1.2 + 0.2) / 1.2 - 0.5 / 1.2 <= gap.high
    assert min(covered) >= 550
