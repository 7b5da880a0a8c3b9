"""The comparison in the plan: who answers, its memory, its time."""

from __future__ import annotations

import pytest
from planning import COLOCATE, QWEN3_4B, SERVER, cluster, config, planned

from grpo_dist.errors import PlanError
from grpo_dist.launch.stages import stages
from grpo_dist.plan import plan_run
from grpo_dist.run.directory import RunDirectory

LONG = {"max_completion_length": 4096}


def answering(nodes: int, **sections) -> str:
    return planned(cluster=cluster(nodes, 8), grpo={"prompts_per_step": 64}, **sections).time["comparison"]["answering"]


@pytest.mark.parametrize(
    ("rollout", "who"),
    [
        (COLOCATE, "16 engines on the training GPUs"),
        ({**COLOCATE, "enable_sleep_mode": True}, "16 engines on the training GPUs"),
        ({**COLOCATE, "tensor_parallel_size": 4}, "4 engines on the training GPUs"),
        ({**SERVER, "nodes": 1}, "the run's 8 servers"),
        ({**COLOCATE, "sync": "merged"}, "16 training processes with Transformers"),
        ({"backend": "transformers"}, "16 training processes with Transformers"),
    ],
)
def test_every_mode_answers_on_all_it_has(rollout, who):
    assert answering(2, rollout=rollout) == who


def test_twice_the_gpus_compare_faster():
    def seconds(nodes):
        grpo = {"prompts_per_step": 64}
        return planned(cluster=cluster(nodes, 8), grpo=grpo).time["comparison"]["seconds"]

    assert seconds(2) < 0.7 * seconds(1)


def test_the_run_takes_its_steps_and_the_comparison():
    time = planned(cluster=cluster(1, 8), rollout=COLOCATE, grpo={"max_steps": 100}).time
    assert time["run_hours"] == pytest.approx(time["hours"] + time["comparison"]["hours"])
    assert time["run_gpu_hours"] == pytest.approx(8 * time["run_hours"])
    without = planned(cluster=cluster(1, 8), rollout=COLOCATE, evaluation={"enabled": False})
    assert without.time["comparison"] is without.memory["comparison"] is None


def test_what_does_not_fit_is_refused_with_what_does():
    few = {"prompts_per_step": 1, "num_generations": 2}
    sections = {"cluster": cluster(1, 1, "a10"), "grpo": {**few, **LONG}}
    with pytest.raises(PlanError, match=r"evaluation\.batch_size: generating 512 answers at a time") as caught:
        planned(evaluation={"batch_size": 512}, **sections)
    setting = caught.value.hint.split("--set evaluation.batch_size=")[1].split()[0]
    memory = planned(evaluation={"batch_size": int(setting)}, **sections).memory["comparison"]
    assert memory["headroom_bytes"] >= 0


def test_samples_of_a_problem_that_do_not_fit_together_are_named():
    sections = {"cluster": cluster(1, 1, "a10"), "grpo": {"prompts_per_step": 1, "num_generations": 2}}
    evaluation = {"batch_size": 8, "num_samples": 5000}
    with pytest.raises(PlanError, match=r"evaluation\.num_samples: generating 5,000 answers at a time") as caught:
        planned(evaluation=evaluation, **sections)
    setting = caught.value.hint.split("--set evaluation.num_samples=")[1].split()[0]
    assert "batch_size" not in caught.value.hint
    assert planned(evaluation={**evaluation, "num_samples": int(setting)}, **sections)


def test_longer_answers_take_longer():
    def seconds(**evaluation):
        stated = {"cluster": cluster(1, 8), "rollout": COLOCATE, "evaluation": evaluation}
        return planned(**stated).time["comparison"]["seconds"]

    assert seconds(max_completion_length=4096) > 3 * seconds()


@pytest.mark.parametrize(
    ("rollout", "gpus", "alone"),
    [(COLOCATE, 8, False), (SERVER, 8, True), ({"backend": "transformers"}, 8, False), (COLOCATE, 1, True)],
)
def test_the_stage_runs_where_it_was_planned(rollout, gpus, alone, tmp_path):
    stated = config(QWEN3_4B, cluster=cluster(1, gpus), rollout=rollout)
    stage = stages(RunDirectory(tmp_path), plan_run(stated), stated)[-1]
    assert (stage.name, stage.alone) == ("compare", alone)
    assert ("accelerate.commands.launch" in stage.argv) != alone
