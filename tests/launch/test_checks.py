from __future__ import annotations

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.errors import ConfigError, LaunchError, PlanError
from grpo_dist.launch import checks
from grpo_dist.launch.stages import allocator_environment, device_environment
from grpo_dist.plan import plan_run
from grpo_dist.run.directory import RunDirectory
from grpo_dist.run.metrics import tracker_environment


def config(**sections) -> RunConfig:
    embedded = {"name_or_path": "embedded"}
    return RunConfig.model_validate({"model": embedded, "data": embedded, **sections})


def test_every_unknown_reward_is_named_with_its_place():
    stated = config(rewards={"functions": ["check_anser", "notebok"]}, evaluation={"scorer": "acuracy"})
    with pytest.raises(ConfigError) as caught:
        checks.check_reward_settings(stated)
    assert caught.value.message.splitlines() == [
        "rewards.functions: there is no reward 'check_anser'; did you mean 'check_answer'?",
        "rewards.functions: there is no reward 'notebok'; did you mean 'notebook'?",
        "evaluation.scorer: there is no reward 'acuracy'; did you mean 'accuracy'?",
    ]


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name in ("wandb", "trl") else object())
    with pytest.raises(ConfigError, match=r"tracking: wandb not installed\n.*pip install wandb"):
        checks.check_packages(["wandb", "trackio"])
    with pytest.raises(LaunchError, match=r"training needs trl, not installed.*\n.*grpo-dist\[train\]"):
        checks.check_packages([])


def test_processes_on_cpu_share_the_threads_and_see_no_gpu():
    topology = plan_run(config(cluster={"gpus_per_node": 0}, distributed={"num_processes": 2})).topology
    together = device_environment(topology, {}, alone=False)
    alone = device_environment(topology, {}, alone=True)
    assert int(alone["OMP_NUM_THREADS"]) >= int(together["OMP_NUM_THREADS"]) >= 1
    assert together["CUDA_VISIBLE_DEVICES"] == ""
    assert "OMP_NUM_THREADS" not in device_environment(topology, {"OMP_NUM_THREADS": "7"}, alone=False)


def test_a_process_sees_the_planned_gpus_and_a_lone_stage_one():
    topology = plan_run(config(cluster={"gpus_per_node": 2})).topology
    assert device_environment(topology, {}, alone=False) == {"CUDA_VISIBLE_DEVICES": "0,1"}
    visible = {"CUDA_VISIBLE_DEVICES": "4,6,7"}
    assert device_environment(topology, visible, alone=False) == {"CUDA_VISIBLE_DEVICES": "4,6"}
    assert device_environment(topology, visible, alone=True) == {"CUDA_VISIBLE_DEVICES": "4"}
    half = plan_run(config(cluster={"gpus_per_node": 2}, distributed={"num_processes": 1})).topology
    assert device_environment(half, visible, alone=False) == {"CUDA_VISIBLE_DEVICES": "4"}
    with pytest.raises(PlanError, match="2 planned, but CUDA_VISIBLE_DEVICES shows 1"):
        device_environment(topology, {"CUDA_VISIBLE_DEVICES": "3"}, alone=False)


def test_trackers_write_into_the_run_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = RunDirectory(tmp_path / "run")
    ours = tracker_environment(["wandb"], run, {"TRACKIO_DIR": "/elsewhere"})
    assert ours["WANDB_MODE"] == "offline"
    assert ours["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "run" / "tensorboard")
    assert "TRACKIO_DIR" not in ours
    assert "WANDB_MODE" not in tracker_environment(["wandb"], run, {"WANDB_API_KEY": "k"})
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert "WANDB_MODE" not in tracker_environment(["wandb"], run, {})


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        config(model={"name_or_path": "embedded", "dtype": "float16"}, cluster={"gpus_per_node": 0})


@pytest.mark.parametrize(
    ("rollout", "grows"),
    [
        ({"backend": "transformers"}, True),
        ({"backend": "vllm"}, True),
        ({"backend": "vllm", "mode": "server"}, True),
        ({"backend": "vllm", "enable_sleep_mode": True}, False),
        ({"backend": "vllm", "tensor_parallel_size": 2}, False),
    ],
)
def test_segments_grow_where_vllm_allows_it(rollout, grows):
    stated = RunConfig.model_validate(
        {
            "model": {"name_or_path": "Qwen/Qwen3-0.6B"},
            "data": {"name_or_path": "some/where"},
            "cluster": {"gpus_per_node": 2},
            "rollout": rollout,
        }
    )
    topology = plan_run(stated).topology
    assert ("PYTORCH_CUDA_ALLOC_CONF" in allocator_environment(stated, topology, {})) == grows
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        assert allocator_environment(stated, topology, {name: "max_split_size_mb:512"}) == {}
