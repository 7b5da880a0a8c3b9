"""vLLM's own start-up checks on what is planned and passed."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning import COLOCATE, QWEN3_4B, SERVER, cluster, config

from grpo_dist.config import RunConfig, load_config
from grpo_dist.errors import PlanError
from grpo_dist.inference.server import argv, longest_text, server_settings
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.plan.launch import plan_without_hint
from grpo_dist.plan.specs import architecture_of

SHIPPED = sorted(Path(__file__).parents[2].joinpath("configs").glob("*.yaml"))
BIG = "Qwen/Qwen3-32B"
UNSTATED = {"data": {"max_prompt_length": None, "max_prompt_length_quantile": 0.9}}


def generated() -> list[RunConfig]:
    found = []
    for model in (QWEN3_4B, "Qwen/Qwen3-0.6B", "Qwen/Qwen3-14B-Base", BIG):
        for gpu in ("t4", "a10", "rtx-4090", "l40s", "a100-40gb", "h100", "b200"):
            for nodes, gpus in ((1, 1), (1, 8), (2, 8)):
                for rollout in (COLOCATE, SERVER, {**COLOCATE, "enable_sleep_mode": True}):
                    dtype = {"model_section": {"dtype": "float16"}} if gpu == "t4" else {}
                    judged = {"max_completion_length": 9000} if gpus == 8 else {}
                    grpo = {"prompts_per_step": 16, "num_generations": 8, "max_completion_length": 1024}
                    machines = cluster(nodes, gpus, gpu)
                    sections = {"cluster": machines, "rollout": rollout, "grpo": grpo, "evaluation": judged}
                    found.append(config(model, **sections, **UNSTATED, **dtype))
    return found


def pools(plan: LaunchPlan) -> list[int]:
    """Bytes of KV cache of every kind of engine the plan has."""
    roles = [*plan.memory["roles"].values(), *filter(None, [plan.memory["comparison"]])]
    return [
        part["bytes"]
        for role in roles
        for part in role["components"]
        if part["name"].endswith("KV cache") and "tokens: " in part["source"]
    ]


def check(config: RunConfig, plan: LaunchPlan) -> None:
    from vllm.v1.core.kv_cache_utils import _check_enough_kv_cache_memory

    architecture, size = architecture_of(config.model.name_or_path), plan.topology.tensor_parallel_size
    each = architecture.kv_bytes_per_token(2) // min(size, architecture.num_key_value_heads)
    assert plan.max_model_len <= architecture.max_position_embeddings
    for pool in pools(plan):
        needed = plan.max_model_len * each
        _check_enough_kv_cache_memory(pool, lambda needed=needed: needed, plan.max_model_len, lambda room: room // each)


@pytest.fixture(scope="module")
def planned() -> list[tuple[RunConfig, LaunchPlan]]:
    found = []
    for stated in [*map(load_config, SHIPPED), *generated()]:
        try:
            found.append((stated, plan_without_hint(stated)))
        except PlanError:
            continue
    return found


@pytest.mark.heavy
def test_vllm_starts_with_every_planned_length(planned):
    pytest.importorskip("vllm")
    asked = [(stated, plan) for stated, plan in planned if plan.backend == "vllm"]
    assert len(asked) > 100
    for stated, plan in asked:
        check(stated, plan)


def test_what_is_planned_is_passed(planned):
    for stated, plan in planned:
        if plan.backend != "vllm":
            assert plan.max_model_len is None
            continue
        assert longest_text(stated) == plan.max_model_len
        longest = max(stated.grpo.max_completion_length, stated.evaluation.max_completion_length or 0)
        assert plan.max_model_len == plan.max_prompt_length + longest
        command = argv(server_settings(stated, plan, "model", "tokenizer"), "h", 1)
        assert command[command.index("--max-model-len") + 1] == str(plan.max_model_len)


@pytest.mark.parametrize(
    ("sections", "length"),
    [
        ({"data": {"max_prompt_length": None}}, 512 + 1000),
        ({"data": {"max_prompt_length": None}, "evaluation": {"max_completion_length": 3000}}, 512 + 3000),
        ({"evaluation": {"max_completion_length": 3000, "enabled": False}}, 202 + 1000),
        ({"evaluation": {"max_completion_length": 30}}, 202 + 1000),
        ({"model_section": {"max_length": 1300}, "data": {"max_prompt_length": None}}, 1300),
        ({"data": {"max_prompt_length": None}, "grpo": {"max_completion_length": 32_600}}, 32_768),
    ],
)
def test_engines_hold_prompt_and_longest_completion(sections, length):
    grpo = {"max_completion_length": 1000, **sections.pop("grpo", {})}
    assert plan_run(config(cluster=cluster(1, 8), rollout=COLOCATE, grpo=grpo, **sections)).max_model_len == length


def test_a_model_that_is_not_known_takes_its_own_positions():
    stated = config("some/body", cluster=cluster(1, 8), rollout=SERVER, data={"max_prompt_length": None})
    assert plan_run(stated).max_model_len is None
    assert plan_run(config("some/body", cluster=cluster(1, 8), rollout=SERVER)).max_model_len == 202 + 512
