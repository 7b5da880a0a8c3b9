from __future__ import annotations

from dataclasses import replace

import pytest
from timing_setups import layout, workload

from grpo_dist.errors import PlanError
from grpo_dist.plan.specs import architecture_of
from grpo_dist.plan.time import balance, learning_rate_advice, scale_rows, step_time


def test_taking_turns_on_all_gpus_is_fastest_where_it_fits():
    found = balance(workload(), layout())
    assert found.layout.colocated
    assert found.reason.startswith("all 8 GPUs train and generate in turn: ")
    assert "wait for each other" in found.reason


def test_the_best_is_the_fastest_of_all_that_divide():
    found = balance(workload(), layout(), colocate=False)
    assert {time.layout.trainer_gpus for time in found.candidates} == {1, 2, 4}
    assert found.best.seconds == min(time.seconds for time in found.candidates)
    assert f"{found.best.seconds:.1f} s" in found.reason


def test_overlap_makes_separate_gpus_worth_it_when_generation_rules():
    """Few long completions: decode steps, not GPUs, set the pace, so giving half of them away costs little."""
    found = balance(workload(prompts_per_step=4, scoring_forwards=0), layout(overlap=True))
    assert not found.layout.colocated
    assert "at the same time" in found.reason


def test_little_kv_cache_speaks_against_colocation():
    """32B in 16 bit leaves nothing of 30 % of an H100; the whole card holds it."""
    big = workload(architecture=architecture_of("Qwen/Qwen3-32B"))
    found = balance(big, layout(), colocate_memory_utilization=0.3)
    assert not found.layout.colocated
    assert all(not time.layout.colocated for time in found.candidates)


def test_replicas_stay_inside_a_node():
    found = balance(workload(), layout(nodes=2, gpus=4, tensor_parallel=4), colocate=False)
    assert {time.layout.rollout_gpus for time in found.candidates} == {4}


def test_the_training_processes_generate_themselves_with_transformers():
    assert [time.layout.rollout_gpus for time in balance(workload(), layout(backend="transformers")).candidates] == [0]


def test_nothing_fits():
    huge = workload(architecture=architecture_of("Qwen/Qwen3-32B"))
    with pytest.raises(PlanError, match="one sequence of 2,046 tokens"):
        balance(huge, layout(name="t4"))


def test_nothing_divides():
    with pytest.raises(PlanError, match="1 nodes × 1 GPUs cannot be shared out") as raised:
        balance(workload(), layout(gpus=1), colocate=False)
    assert "colocate" in raised.value.hint


def test_a_thousand_nodes_take_one_estimate_per_split():
    """1 colocated and 1,023 splits by whole nodes, among which are the 7 by GPUs of each node."""
    found = balance(workload(prompts_per_step=720_720), layout(nodes=1024))
    divisors = [trainers for trainers in range(8, 8192, 8) if 720_720 * 16 % trainers == 0]
    assert sorted(time.layout.trainer_gpus for time in found.candidates) == divisors


def test_scale_rows():
    """Completions per GPU kept: generation and training stay, only synchronisation grows."""
    sizes = [(workload(prompts_per_step=32 * nodes), layout(nodes=nodes)) for nodes in (1, 2, 4)]
    one, two, four = scale_rows(sizes, steps=100)
    assert [row.tokens_per_step for row in (one, two, four)] == [614_400, 1_228_800, 2_457_600]
    assert one.seconds_per_step < two.seconds_per_step <= four.seconds_per_step < 1.1 * one.seconds_per_step
    assert four.gpu_hours == pytest.approx(100 * four.seconds_per_step * 32 / 3600)
    assert four.hours == pytest.approx(four.gpu_hours / 32)
    assert four.time == step_time(*sizes[2])
    assert [row.gpus for row in (one, two, four)] == [8, 16, 32]


def test_a_fixed_step_gets_faster_but_never_in_proportion():
    rows = scale_rows([(workload(), layout(nodes=nodes)) for nodes in (1, 2, 4, 8)], steps=1)
    seconds = [row.seconds_per_step for row in rows]
    assert seconds == sorted(seconds, reverse=True)
    assert [row.gpu_hours for row in rows] == sorted(row.gpu_hours for row in rows)


@pytest.mark.parametrize(
    ("optim", "after", "factor", "source"),
    [
        ("adamw_torch", 1024, 2.0, "Malladi"),
        ("adamw_8bit", 64, 0.5, "Malladi"),
        ("rmsprop", 1024, 2.0, "Malladi"),
        ("sgd", 1024, 4.0, "Goyal"),
        ("sgd", 64, 0.25, "Goyal"),
        ("lion_32bit", 1024, 2.0, "carried over to lion_32bit"),
    ],
)
def test_learning_rate(optim, after, factor, source):
    advice = learning_rate_advice(5e-6, 256, after, optim)
    assert advice.factor == pytest.approx(factor)
    assert advice.learning_rate == pytest.approx(5e-6 * factor)
    assert source in advice.source
    assert f"{after} / 256" in advice.text


def test_the_same_step_keeps_its_learning_rate():
    advice = learning_rate_advice(5e-6, 256, 256)
    assert (advice.learning_rate, advice.factor) == (5e-6, 1.0)
    assert "as many completions as before" in advice.text


def test_colocation_takes_its_own_share_of_memory():
    found = balance(workload(), layout(gpu_memory_utilization=0.9), colocate_memory_utilization=0.5)
    shares = {time.layout.colocated: time.layout.gpu_memory_utilization for time in found.candidates}
    assert shares == {True: 0.5, False: 0.9}


def test_the_template_is_left_as_it_is():
    given = layout(nodes=2)
    balance(workload(), given)
    assert given == replace(given)
