from __future__ import annotations

import json

import pytest
from planning import COLOCATE, QWEN3_4B, SERVER, cluster, planned
from planning import config as config_of

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.plan.inputs import GpuMemory, basis_of, trainer_setup
from grpo_dist.plan.memory.breakdown import weight_bytes
from grpo_dist.plan.specs import architecture_of
from grpo_dist.plan.specs.architecture import SIZES


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
    with pytest.raises(PlanError, match=r"2 processes are set, but 1 node × 1 GPUs = 1"):
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


@pytest.mark.parametrize(
    ("strategy", "gpus", "distributed_type"),
    [("zero1", 2, "DEEPSPEED"), ("zero3", 2, "DEEPSPEED"), ("fsdp2", 2, "FSDP"), ("zero2", 0, "DEEPSPEED")],
)
def test_sharding_names_accelerates_type(strategy, gpus, distributed_type):
    plan = plan_run(
        config(
            cluster={"gpus_per_node": gpus},
            distributed={"strategy": strategy, **({} if gpus else {"num_processes": 2})},
        )
    )
    assert plan.distributed_type == distributed_type


def test_truncated_sampling_with_vllm_is_warned_about():
    stated = {"top_p": 0.9, "min_p": 0.1}
    assert not planned(cluster=cluster(1, 8), grpo=stated).warnings
    assert planned(cluster=cluster(1, 8), rollout=COLOCATE, grpo=stated).warnings == (
        "grpo.top_p, grpo.min_p: truncated sampling biases TRL's importance-sampling correction for vLLM; leave it out",
    )


def test_idle_gpus_are_warned_about():
    plan = planned(cluster=cluster(1, 8), distributed={"num_processes": 4})
    assert plan.topology.idle_gpus == 4
    assert plan.warnings == ("4 of 8 GPUs are used by nothing",)


def test_an_assumed_prompt_length_is_said():
    plan = planned(data={"max_prompt_length": None})
    assert plan.memory["assumptions"][0]["value"] == 512
    assert plan.warnings[0].startswith("data.max_prompt_length is not set")


def test_a_model_that_is_not_known_is_planned_without_memory_and_time():
    plan = planned("someone/else", cluster=cluster(2, 8), rollout=SERVER)
    assert (plan.memory, plan.time, plan.gpu_memory_utilization) == (None, None, None)
    assert "hf download someone/else config.json" in plan.warnings[0]
    assert plan.topology.num_processes == 8
    assert LaunchPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("name", ["~nobody-here/model", "x" * 5000, "../" * 50, "a\nb"])
def test_a_name_that_is_no_path_is_a_model_not_known(name):
    plan = planned(name)
    assert plan.memory is None
    assert plan.warnings[0].isprintable()


def test_the_micro_batch_is_the_largest_that_fits():
    stated = {"grpo": {"max_completion_length": 8192, "prompts_per_step": 16}, "cluster": cluster(1, 2, "a100-40gb")}
    plan = planned(**stated, rollout={**SERVER, "replicas": 1})
    taken = plan.batch.per_device_train_batch_size
    assert 1 < taken < 16
    config_ = config_of(**stated, rollout={**SERVER, "replicas": 1})
    basis = basis_of(config_)
    trainer = GpuMemory(trainer_setup(basis, basis.architecture, 1, 0))
    assert trainer.memory(taken).fits(basis.gpu.memory)
    assert not trainer.memory(2 * taken).fits(basis.gpu.memory)
    assert plan.memory["roles"]["trainer"]["total_bytes"] == trainer.memory(taken).total


def test_roles_and_margin_are_in_the_plan():
    server = planned(cluster=cluster(2, 8), rollout={**SERVER, "nodes": 1}).memory
    assert set(server["roles"]) == {"trainer", "rollout"}
    assert "margin" in {part["name"] for part in server["roles"]["trainer"]["components"]}
    assert set(planned(cluster=cluster(1, 8), rollout=COLOCATE).memory["roles"]) == {"colocate"}
    assert set(planned().memory["roles"]) == {"trainer"}


def test_a_colocated_engine_takes_what_training_leaves():
    stated = {"grpo": {"max_completion_length": 8192, "prompts_per_step": 64}, "cluster": cluster(1, 8)}
    awake = planned(**stated, rollout=COLOCATE)
    asleep = planned(**stated, rollout={**COLOCATE, "enable_sleep_mode": True})
    assert awake.gpu_memory_utilization < asleep.gpu_memory_utilization <= 0.9
    assert 0 <= awake.memory["roles"]["colocate"]["headroom_bytes"] < awake.memory["gpu_bytes"] / 50
    fixed = planned(**stated, rollout={**COLOCATE, "gpu_memory_utilization": 0.3})
    assert fixed.gpu_memory_utilization == 0.3


def test_on_cpu_memory_is_told_and_not_held_against_a_gpu():
    memory = planned(cluster=cluster(1, 0)).memory
    assert memory["gpu_bytes"] is None
    names = {part["name"] for part in memory["roles"]["trainer"]["components"]}
    assert "weights" in names
    assert not names & {"CUDA context", "NCCL buffers"}


def test_hours_count_every_gpu_of_the_nodes():
    plan = planned(cluster=cluster(1, 8), distributed={"num_processes": 4}, grpo={"max_steps": 900})
    assert plan.time["gpu_hours"] == pytest.approx(8 * 900 * plan.time["seconds_per_step"] / 3600)
    assert planned(cluster=cluster(1, 8)).time["gpu_hours"] is None


def test_a_gpu_of_other_figures():
    small = planned(cluster=cluster(1, 1, gpu_overrides={"memory": 24e9}))
    assert small.memory["gpu_bytes"] == 24_000_000_000
    unknown = cluster(1, 1, "grace", gpu_overrides={"memory": 9e10, "flops": 1e15, "bandwidth": 4e12})
    assert planned(cluster=unknown).memory["gpu"] == "grace"


def test_quantised_weights_are_counted():
    kept = planned().memory["roles"]["trainer"]["total_bytes"]
    packed = planned(model_section={"model_init_kwargs": {"quantization_config": {"load_in_4bit": True}}})
    assert packed.memory["roles"]["trainer"]["total_bytes"] < kept
    assert [told for told in packed.warnings if "4bit weights are timed as whole ones" in told]


def test_stored_quantised_weights_are_served_as_they_are(tmp_path):
    whole = architecture_of(QWEN3_4B)
    stored = {"model_type": "qwen3", **{name: getattr(whole, name) for name in SIZES}, "num_key_value_heads": 8}
    stored |= {"tie_word_embeddings": True, "quantization_config": {"load_in_4bit": True}}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    plan = planned(str(tmp_path), cluster=cluster(1, 2), rollout=SERVER)
    trainer, rollout = (
        {part["name"]: part["bytes"] for part in role["components"]} for role in plan.memory["roles"].values()
    )
    assert trainer["weights"] == weight_bytes(whole, "bfloat16", "4bit")
    assert rollout["weights"] == trainer["weights"]
