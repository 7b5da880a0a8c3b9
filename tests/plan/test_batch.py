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


@given(sizes)
def test_every_suggestion_of_a_refusal_works(stated):
    try:
        plan_batch(**stated)
    except PlanError as error:
        choices = [
            choice.removeprefix("--set ") for choice in error.hint.removeprefix("nearest that do: ").split(", or ")
        ]
        assert choices
        for choice in choices:
            key, value = choice.split("=")
            assert plan_batch(**{**stated, key.split(".")[1]: int(value)})


def test_the_refusal_restates_the_multiplication():
    with pytest.raises(PlanError) as caught:
        plan_batch(prompts_per_step=5, num_generations=7, num_processes=8, max_per_device_train_batch_size=16)
    assert str(caught.value) == (
        "5 prompts × 7 completions = 35 completions per step do not divide over 8 processes (35 = 4 × 8 + 3)\n"
        "  → nearest that do: --set grpo.prompts_per_step=8, or --set grpo.num_generations=8, "
        "or --set distributed.num_processes=7"
    )


@pytest.mark.parametrize(("stated", "iterations", "aligned"), [(50, 1, 50), (50, 3, 51), (1, 4, 4), (8, 4, 8)])
def test_checkpoints_end_a_generation_window(stated, iterations, aligned):
    assert aligned_save_steps(stated, iterations) == aligned


@pytest.mark.heavy
@given(sizes)
def test_trl_accepts_the_plan_and_derives_the_same(stated):
    from trl import GRPOConfig

    try:
        batch = plan_batch(**stated)
    except PlanError:
        return

    class Config(GRPOConfig):
        world_size = batch.num_processes

    config = Config(
        output_dir="unused",
        use_cpu=True,
        bf16=False,
        report_to="none",
        num_generations=batch.num_generations,
        per_device_train_batch_size=batch.per_device_train_batch_size,
        gradient_accumulation_steps=batch.gradient_accumulation_steps,
        steps_per_generation=batch.steps_per_generation,
    )
    assert config.generation_batch_size == batch.generation_batch_size
    assert config.steps_per_generation == batch.steps_per_generation
