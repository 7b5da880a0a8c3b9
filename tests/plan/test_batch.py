from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.errors import PlanError
from grpo_dist.plan.batch import aligned_save_steps, plan_batch

sizes = st.fixed_dictionaries(
    {
        "prompts_per_step": st.integers(1, 300),
        "num_generations": st.integers(2, 64),
        "num_processes": st.integers(1, 64),
        "max_per_device_train_batch_size": st.integers(1, 128),
    }
)


@given(sizes)
def test_a_plan_is_exact_or_refused(stated):
    completions = stated["prompts_per_step"] * stated["num_generations"]
    try:
        batch = plan_batch(**stated)
    except PlanError:
        assert completions % stated["num_processes"] != 0
        return
    assert batch.generation_batch_size == completions
    assert (
        batch.per_device_train_batch_size * batch.num_processes * batch.gradient_accumulation_steps
        == batch.generation_batch_size
    )
    assert batch.steps_per_generation == batch.gradient_accumulation_steps
    assert batch.per_device_train_batch_size <= stated["max_per_device_train_batch_size"]
    assert batch.per_device_eval_batch_size * batch.num_processes % batch.num_generations == 0
    assert batch.per_device_eval_batch_size >= batch.per_device_train_batch_size


@given(sizes)
def test_every_suggestion_of_a_refusal_works_and_none_is_nearer(stated):
    try:
        plan_batch(**stated)
    except PlanError as error:
        choices = [line.split()[1] for line in error.hint.splitlines()[1:]]
        assert len(choices) == 3
        for choice in choices:
            key, value = choice.split("=")
            name, number = key.split(".")[1], int(value)
            assert plan_batch(**{**stated, name: number})
            if choice in choices[:2]:
                assert not works_nearer(stated, name, abs(number - stated[name]))


def works_nearer(stated: dict[str, int], name: str, distance: int) -> bool:
    least = 2 if name == "num_generations" else 1
    products = [
        {**stated, name: value}
        for value in range(stated[name] - distance + 1, stated[name] + distance)
        if value >= least
    ]
    return any(one["prompts_per_step"] * one["num_generations"] % one["num_processes"] == 0 for one in products)


def test_the_refusal_restates_the_multiplication():
    with pytest.raises(PlanError) as caught:
        plan_batch(prompts_per_step=5, num_generations=7, num_processes=8, max_per_device_train_batch_size=16)
    assert str(caught.value) == (
        "5 prompts × 7 completions = 35 completions per step do not divide over 8 processes: 35 = 4 × 8 + 3; "
        "35 lacks the factor 8\n"
        "  → nearest that can run:\n"
        "      --set grpo.prompts_per_step=8      8 × 7 = 56 completions per step\n"
        "      --set grpo.num_generations=8       5 × 8 = 40 completions per step\n"
        "      --set distributed.num_processes=7  the same completions"
    )


@pytest.mark.parametrize(("stated", "iterations", "aligned"), [(50, 1, 50), (50, 3, 51), (1, 4, 4), (8, 4, 8)])
def test_checkpoints_end_a_generation_window(stated, iterations, aligned):
    assert aligned_save_steps(stated, iterations) == aligned
