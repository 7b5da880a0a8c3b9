"""The additions, and how they are worked out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.embedded.problems import HELDOUT_PROBLEMS, TRAIN_PROBLEMS, carries, problems, worked

SEEDS = [0, 1, 42, 3407, 2**31 - 1, 2**32 - 1]
two_digits = st.integers(10, 99)


def numbers(row: dict[str, str]) -> tuple[int, int]:
    a, b = row["prompt"].removesuffix("=").split("+")
    return int(a), int(b)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_sum_is_asked_twice_in_either_order(seed):
    train, heldout = problems(seed, TRAIN_PROBLEMS, HELDOUT_PROBLEMS)
    assert (len(train), len(heldout)) == (TRAIN_PROBLEMS, HELDOUT_PROBLEMS)
    asked = [frozenset(numbers(row)) for row in train + heldout]
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_are_right(seed):
    train, heldout = problems(seed, TRAIN_PROBLEMS, HELDOUT_PROBLEMS)
    for row in train + heldout:
        a, b = numbers(row)
        assert a >= 10 and b >= 10 and a + b < 100
        assert row == {"prompt": f"{a}+{b}=", "answer": str(a + b)}


def test_the_seed_decides():
    assert problems(7, 100, 10) == problems(7, 100, 10)
    assert problems(7, 100, 10) != problems(8, 100, 10)


def test_fewer_training_problems_are_a_prefix():
    assert problems(7, 100, 10)[0] == problems(7, 1000, 10)[0][:100]


def test_fewer_held_out_problems_are_a_prefix():
    assert problems(7, 100, 10)[1] == problems(7, 100, 300)[1][:10]


def test_both_orders_occur():
    train, _ = problems(0, 200, 0)
    larger_first = sum(a > b for a, b in map(numbers, train))
    assert 50 < larger_first < 150


def test_all_sums_can_be_asked_for_and_no_more():
    assert len(problems(0, 1024, 256)[0]) == 1024
    with pytest.raises(ValueError, match="1025 \\+ 256 problems wanted, there are 1280"):
        problems(0, 1025, 256)


@pytest.mark.parametrize("seed", SEEDS)
def test_half_of_them_need_a_carry(seed):
    for rows in problems(seed, TRAIN_PROBLEMS, HELDOUT_PROBLEMS):
        assert sum(carries(row["prompt"]) for row in rows) * 2 == len(rows)


def test_worked_out_with_and_without_the_carry():
    assert worked("47+38=", carry=True) == "7+8=15 4+3=7+1=8<end_working_out><SOLUTION>85</SOLUTION>"
    assert worked("47+38=", carry=False) == "7+8=15 4+3=7<end_working_out><SOLUTION>75</SOLUTION>"


@given(two_digits, two_digits)
def test_the_carry_is_all_that_is_forgotten(a, b):
    prompt = f"{a}+{b}="
    assert worked(prompt, carry=True).endswith(f"<SOLUTION>{a + b}</SOLUTION>")
    forgotten = a + b - 10 if carries(prompt) else a + b
    assert worked(prompt, carry=False).endswith(f"<SOLUTION>{forgotten}</SOLUTION>")
