from __future__ import annotations

from dataclasses import replace

import pytest
from timing_setups import layout, workload

from grpo_dist.errors import PlanError
from grpo_dist.plan.specs import architecture_of
from grpo_dist.plan.time import balance, learning_rate_advice


def test_the_best_is_the_fastest_of_all_that_divide():
    found = balance(workload(), layout())
    assert {time.layout.trainer_gpus for time in found.candidates} == {1, 2, 4}
    assert found.best.seconds == min(time.seconds for time in found.candidates)
    assert f"{found.best.seconds:.1f} s" in found.reason


def test_replicas_stay_inside_a_node():
    found = balance(workload(), layout(nodes=2, gpus=4, tensor_parallel=4))
    assert {time.layout.rollout_gpus for time in found.candidates} == {4}


def test_nothing_fits():
    huge = workload(architecture=architecture_of("Qwen/Qwen3-32B"))
    with pytest.raises(PlanError, match="one sequence of 2,046 tokens"):
        balance(huge, layout(name="t4"))


def test_nothing_divides():
    with pytest.raises(PlanError, match="1 nodes × 1 GPUs cannot be shared out") as raised:
        balance(workload(), layout(gpus=1))
    assert "colocate" in raised.value.hint


def test_a_thousand_nodes_take_one_estimate_per_split():
    """1,023 splits by whole nodes, among which are the 7 by GPUs of each node."""
    found = balance(workload(prompts_per_step=720_720), layout(nodes=1024))
    divisors = [trainers for trainers in range(8, 8192, 8) if 720_720 * 16 % trainers == 0]
    assert sorted(time.layout.trainer_gpus for time in found.candidates) == divisors


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


def test_the_template_is_left_as_it_is():
    given = layout(nodes=2)
    balance(workload(), given)
    assert given == replace(given)
