from __future__ import annotations

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError
from grpo_dist.plan import LaunchPlan, plan_run


def config(**sections) -> RunConfig:
    embedded = {"name_or_path": "embedded"}
    return RunConfig.model_validate({"model": embedded, "data": embedded, **sections})


@pytest.mark.parametrize(
    ("sections", "processes", "distributed_type", "device"),
    [
        ({"cluster": {"gpus_per_node": 0}}, 1, "NO", "cpu"),
        ({"cluster": {"gpus_per_node": 0}, "distributed": {"num_processes": 2}}, 2, "MULTI_CPU", "cpu"),
        ({}, 1, "NO", "cuda"),
        ({"cluster": {"gpus_per_node": 8}}, 8, "MULTI_GPU", "cuda"),
    ],
)
def test_processes_follow_the_devices(sections, processes, distributed_type, device):
    plan = plan_run(config(**sections))
    assert (plan.topology.num_processes, plan.distributed_type, plan.topology.device) == (
        processes,
        distributed_type,
        device,
    )


def test_more_processes_than_gpus_is_refused():
    with pytest.raises(PlanError, match=r"2 processes stated, but 1 node × 1 GPUs = 1"):
        plan_run(config(distributed={"num_processes": 2}))


def test_the_suggestion_names_the_setting_that_counts_processes():
    with pytest.raises(PlanError, match=r"--set cluster\.gpus_per_node=6"):
        plan_run(config(cluster={"gpus_per_node": 7}, grpo={"prompts_per_step": 6, "num_generations": 8}))


def test_the_same_step_on_any_number_of_processes():
    for processes in (1, 2, 4, 8):
        batch = plan_run(config(cluster={"gpus_per_node": 0}, distributed={"num_processes": processes})).batch
        assert batch.generation_batch_size == 64
        assert batch.prompts_per_step == 8


def test_plan_json_reads_back_to_the_same_plan():
    plan = plan_run(config(grpo={"num_iterations": 3, "save_steps": 50}))
    assert LaunchPlan.from_json(plan.to_json()) == plan
    assert plan.save_steps == 51
    assert plan.warnings == (
        "grpo.save_steps: 50 falls inside a generation window of 3 optimizer steps; checkpoints are saved every 51",
    )


def test_a_batch_that_only_splits_finely_is_warned_about():
    plan = plan_run(config(grpo={"prompts_per_step": 17, "num_generations": 3}))
    assert plan.batch.gradient_accumulation_steps == 17
    assert "17 passes per step" in plan.warnings[0]
