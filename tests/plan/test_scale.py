from __future__ import annotations

import json

import pytest
from planning import COLOCATE, SERVER, cluster, config

from grpo_dist.plan import plan_run
from grpo_dist.plan.scale import hours_of, sizes
from grpo_dist.plan.scale import rows as rows_of

RECIPE = config(
    cluster=cluster(2, 8),
    rollout=COLOCATE,
    grpo={"prompts_per_step": 32, "num_generations": 16, "learning_rate": 1e-5, "max_steps": 400},
)


def rows(stated=RECIPE, nodes=(1, 2, 4), groups=(), keep="prompts"):
    return [size.to_dict(hours_of(stated)) for size in sizes(stated, nodes, groups, keep)]


def test_prompts_kept_is_the_same_step_faster():
    found = rows()
    assert {(row["prompts_per_step"], row["num_generations"], row["completions_per_step"]) for row in found} == {
        (32, 16, 512)
    }
    assert [row["num_processes"] for row in found] == [8, 16, 32]
    seconds = [row["seconds_per_step"] for row in found]
    assert seconds == sorted(seconds, reverse=True)
    assert {row["learning_rate"]["learning_rate"] for row in found} == {1e-5}


def test_completions_kept_trades_prompts_for_groups():
    found = rows(nodes=(2,), groups=(8, 16, 64), keep="completions")
    assert [(row["prompts_per_step"], row["num_generations"]) for row in found] == [(64, 8), (32, 16), (8, 64)]
    assert {row["completions_per_step"] for row in found} == {512}


def test_group_kept_grows_the_prompts_with_the_nodes():
    found = rows(nodes=(1, 2, 4, 8), keep="group")
    assert [row["prompts_per_step"] for row in found] == [16, 32, 64, 128]
    per_process = {row["completions_per_step"] // row["num_processes"] for row in found}
    assert per_process == {32}
    assert found[2]["learning_rate"]["learning_rate"] == pytest.approx(1e-5 * 2**0.5)
    assert "Malladi" in found[2]["learning_rate"]["source"]


def test_its_own_size_is_its_own_plan():
    own = plan_run(RECIPE)
    row = rows(nodes=(2,))[0]
    assert row["per_device_train_batch_size"] == own.batch.per_device_train_batch_size
    assert row["gradient_accumulation_steps"] == own.batch.gradient_accumulation_steps
    assert row["seconds_per_step"] == own.time["seconds_per_step"]
    assert row["gpu_hours"] == pytest.approx(own.time["gpu_hours"])
    assert row["memory"]["colocate"]["total_bytes"] == own.memory["roles"]["colocate"]["total_bytes"]


def test_a_size_that_cannot_run_is_a_row_with_its_reason():
    fine, odd, indivisible = (
        *rows(nodes=(2, 3)),
        *rows(nodes=(2,), groups=(3,), keep="completions"),
    )
    assert fine["runs"]
    assert not odd["runs"]
    assert "24 processes" in odd["problem"]["message"]
    assert "--set grpo.prompts_per_step=33" in odd["problem"]["hint"]
    assert indivisible["prompts_per_step"] is None
    assert "512 completions per step are no whole number of groups of 3" in indivisible["problem"]["message"]
    json.dumps([fine, odd, indivisible], allow_nan=False)


def test_a_large_group_spans_nodes():
    row = rows(nodes=(16,), groups=(512,))[0]
    assert row["nodes_of_a_group"] == 1
    row = rows(config(cluster=cluster(16, 8), grpo={"prompts_per_step": 2, "num_generations": 512}), (16,))[0]
    assert row["nodes_of_a_group"] == 8


def test_another_size_is_shared_out_afresh():
    stated = config(cluster=cluster(2, 8), rollout={**SERVER, "nodes": 1}, distributed={"num_processes": 8})
    one, two, four = rows(stated, (1, 2, 4))
    assert (two["num_processes"], two["replicas"]) == (8, 8)
    assert one["runs"] and one["num_processes"] + one["replicas"] == 8
    assert four["runs"] and four["num_processes"] + four["replicas"] == 32


def test_processes_on_cpu_grow_with_the_nodes():
    stated = config("embedded", cluster=cluster(1, 0), distributed={"num_processes": 2})
    found = rows(stated, (1, 2, 4))
    assert [row["num_processes"] for row in found] == [2, 4, 8]
    assert {row["gpu_hours"] for row in found} == {None}


def test_without_stated_steps_the_hours_are_of_a_hundred():
    assert hours_of(config()) == 100


def made(nodes=(1, 2, 8), **sections):
    stated = config(
        cluster=cluster(2, 8, time="4:00:00"),
        rollout=sections.pop("rollout", COLOCATE),
        grpo={"prompts_per_step": 64, "num_generations": 16, "max_completion_length": 2048, "max_steps": 400},
        **sections,
    )
    return rows_of(sizes(stated, nodes), hours_of(stated), problems=6400, price=2.5)


def test_the_time_of_a_step_is_told_apart():
    for row in made():
        parts = row["generation_seconds"] + row["training_seconds"] + row["sync_seconds"]
        assert parts == pytest.approx(row["seconds_per_step"])
        assert row["comparison_seconds"] > 0


def test_efficiency_is_of_the_fewest_gpus_and_falls():
    found = [row["efficiency"] for row in made(nodes=(8, 1, 2))]
    assert found[1] == 1
    assert found[0] < found[2] < 1


def test_cost_and_epoch_follow_from_the_hours():
    for row in made():
        whole = 400 * row["seconds_per_step"] + row["comparison_seconds"]
        assert row["run_hours"] == pytest.approx(whole / 3600)
        assert row["cost"] == pytest.approx(2.5 * row["gpus"] * whole / 3600)
        assert row["hours_per_epoch"] == pytest.approx(100 * row["seconds_per_step"] / 3600)
        assert row["jobs"] == -(-whole // (4 * 3600 - 300))


@pytest.mark.parametrize(("rollout", "other"), [(COLOCATE, "server"), (SERVER, "colocate")])
def test_the_other_mode_stands_beside(rollout, other):
    [row] = made(nodes=(2,), rollout=rollout)
    assert row["other_mode"] == other
    assert row["other_seconds_per_step"] > 0


def test_where_the_other_mode_cannot_run_it_is_left_out():
    [row] = rows_of(sizes(config(cluster=cluster(1, 1), rollout=COLOCATE), (1,)), 100, None, None)
    assert row["runs"]
    assert row["other_mode"] is row["cost"] is row["hours_per_epoch"] is None
