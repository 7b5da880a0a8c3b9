from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from engines import server_config

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError
from grpo_dist.inference.server import argv, environment, server_settings
from grpo_dist.plan import plan_run

SCRATCH = Path("/tmp/scratch")


def planned(**sections):
    config = RunConfig.model_validate(
        {
            "model": {"name_or_path": "Qwen/Qwen3-4B-Base"},
            "data": {"name_or_path": "somewhere/problems", "max_prompt_length": 202},
            "grpo": {"max_completion_length": 1000},
            "cluster": {"gpus_per_node": 8, "gpu": "h100"},
            "evaluation": {"enabled": False},
            **sections,
            "rollout": {"backend": "vllm", "mode": "server", **sections.get("rollout", {})},
        }
    )
    plan = plan_run(config)
    return server_settings(config, plan, config.model.name_or_path, "/run/tokenizer"), plan.topology


def options(settings, name):
    command = argv(settings, "10.0.0.1", 20_000)
    return command[command.index(name) + 1] if name in command else None


def env(settings, topology, gpus=(), environ=None):
    return environment(settings, topology, gpus, environ or {}, key="secret", scratch=SCRATCH, incarnation=2)


def test_the_key_is_in_the_environment_and_not_in_the_command():
    settings, topology = planned()
    assert env(settings, topology, (7,))["VLLM_API_KEY"] == "secret"
    assert not any("secret" in part for part in argv(settings, "h", 1))


@pytest.mark.parametrize(("r", "served"), [(1, "1"), (2, "8"), (32, "32"), (33, "64"), (300, "320"), (512, "512")])
def test_the_rank_is_rounded_up_to_one_vllm_serves(r, served):
    settings, _ = planned(lora={"r": r})
    assert options(settings, "--max-lora-rank") == served


@pytest.mark.parametrize(("staleness", "loras", "kept"), [(0, "2", "4"), (1, "3", "5"), (4, "6", "8")])
def test_a_server_holds_the_policies_that_are_in_use_together(staleness, loras, kept):
    settings, _ = planned(rollout={"max_staleness": staleness})
    assert (options(settings, "--max-loras"), options(settings, "--max-cpu-loras")) == (loras, kept)


def test_merged_weights_come_over_nccl_and_no_adapter_is_served():
    settings, topology = planned(rollout={"sync": "merged", "replicas": 1}, distributed={"num_processes": 4})
    assert options(settings, "--weight-transfer-config") == '{"backend": "nccl"}'
    assert "--enable-lora" not in argv(settings, "h", 1)
    assert env(settings, topology, (7,))["VLLM_SERVER_DEV_MODE"] == "1"
    adapters, topology = planned()
    assert "--enable-lora" in argv(adapters, "h", 1)
    assert env(adapters, topology, (7,), {"VLLM_SERVER_DEV_MODE": "1"})["VLLM_SERVER_DEV_MODE"] == "0"


@pytest.mark.parametrize(
    ("sections", "length"),
    [
        ({}, "1202"),
        ({"model": {"name_or_path": "Qwen/Qwen3-4B-Base", "max_length": 1500}}, "1500"),
        ({"evaluation": {"enabled": True, "max_completion_length": 3000}}, "3202"),
        ({"data": {"name_or_path": "somewhere/problems"}}, "1512"),
    ],
)
def test_the_longest_text_is_the_longest_planned(sections, length):
    assert options(planned(**sections)[0], "--max-model-len") == length


def test_gpus_are_those_of_the_replica_within_those_we_may_see():
    settings, topology = planned()
    assert env(settings, topology, (6, 7))["CUDA_VISIBLE_DEVICES"] == "6,7"
    outer = {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c,GPU-d,GPU-e,GPU-f,GPU-g,GPU-h"}
    assert env(settings, topology, (1, 7), outer)["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-h"
    with pytest.raises(PlanError, match="8 planned, but CUDA_VISIBLE_DEVICES shows 2"):
        env(settings, topology, (7,), {"CUDA_VISIBLE_DEVICES": "0,1"})


def test_a_cpu_replica_shares_the_cores_and_keeps_what_the_user_set(tmp_path):
    config = server_config(tmp_path, replicas=2)
    plan = plan_run(config)
    settings = server_settings(config, plan, "m", "t")
    assert "--enforce-eager" in argv(settings, "h", 1)
    assert options(settings, "--gpu-memory-utilization") is None
    found = env(settings, plan.topology, (), {"VLLM_CPU_KVCACHE_SPACE": "4"})
    assert found["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert int(found["OMP_NUM_THREADS"]) >= 1
    assert found["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in env(
        settings, plan.topology, (), {"VLLM_CPU_OMP_THREADS_BIND": "auto"}
    )


def test_a_server_sends_no_statistics_and_keeps_files_to_itself():
    settings, topology = planned()
    found = env(settings, topology, (7,), {"TMPDIR": "/elsewhere", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"})
    assert (found["VLLM_NO_USAGE_STATS"], found["DO_NOT_TRACK"]) == ("1", "1")
    assert {found["TMPDIR"], found["VLLM_RPC_BASE_PATH"]} == {str(SCRATCH)}
    assert found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "0"


def test_a_model_that_brings_code_or_a_revision_is_loaded_as_stated():
    settings, _ = planned()
    assert "--trust-remote-code" not in argv(settings, "h", 1)
    stated = replace(settings, trust_remote_code=True, revision="v2")
    assert "--trust-remote-code" in argv(stated, "h", 1)
    assert options(stated, "--revision") == "v2"
