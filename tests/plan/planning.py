"""Configurations the planning tests share, stated and random."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from grpo_dist.config import RunConfig
from grpo_dist.plan import LaunchPlan, plan_run

QWEN3_4B = "Qwen/Qwen3-4B-Base"
COLOCATE = {"backend": "vllm"}
SERVER = {"backend": "vllm", "mode": "server"}
GIB = 2**30


def config(model: str = QWEN3_4B, **sections: Any) -> RunConfig:
    """A configuration for a model, prompts of up to 202 tokens as in the recipe."""
    named = {"name_or_path": model, **sections.pop("model_section", {})}
    data = {"name_or_path": "somewhere/problems", "max_prompt_length": 202, **sections.pop("data", {})}
    return RunConfig.model_validate({"model": named, "data": data, **sections})


def planned(model: str = QWEN3_4B, **sections: Any) -> LaunchPlan:
    return plan_run(config(model, **sections))


def cluster(nodes: int, gpus: int, gpu: str = "h100", **more: Any) -> dict[str, Any]:
    return {"nodes": nodes, "gpus_per_node": gpus, "gpu": gpu, **more}


def _some(**settings: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=settings)


MODELS = st.sampled_from(["embedded", QWEN3_4B, "Qwen/Qwen3-32B", "Qwen/Qwen3-0.6B", "some/body", "./nowhere"])
ROLLOUTS = st.fixed_dictionaries(
    {},
    optional={
        "backend": st.sampled_from(["transformers", "vllm", "vllm"]),
        "mode": st.sampled_from(["server", "colocate"]),
        "replicas": st.integers(1, 40),
        "nodes": st.integers(0, 8),
        "tensor_parallel_size": st.sampled_from([1, 2, 3, 4, 8, 16]),
        "gpu_memory_utilization": st.sampled_from([0.01, 0.3, 0.5, 0.9, 0.99]),
        "enable_sleep_mode": st.booleans(),
        "sync": st.sampled_from(["adapter", "merged"]),
        "max_staleness": st.sampled_from([0, 0, 1, 4]),
    },
)
GRPO = _some(
    prompts_per_step=st.integers(1, 96) | st.integers(1, 2**31 - 1),
    num_generations=st.integers(2, 64) | st.integers(2, 2**31 - 1),
    max_completion_length=st.sampled_from([1, 16, 512, 1846, 8192, 32_000, 100_000, 2**31 - 1]),
    max_steps=st.sampled_from([-1, 1, 500]),
    num_iterations=st.integers(1, 4),
    save_steps=st.integers(1, 60),
    beta=st.sampled_from([0.0, 0.04]),
    loss_type=st.sampled_from(["dapo", "grpo", "vespo"]),
    optim=st.sampled_from(["adamw_torch", "adamw_8bit", "adafactor", "lomo", "sgd"]),
    gradient_checkpointing=st.booleans(),
    learning_rate=st.sampled_from([0.0, 5e-6]),
)
DISTRIBUTED = _some(
    strategy=st.sampled_from(["ddp", "ddp", "zero1", "zero2", "zero3", "fsdp2"]),
    num_processes=st.integers(1, 70) | st.integers(1, 100_000),
    max_per_device_train_batch_size=st.integers(1, 64) | st.integers(1, 2**31 - 1),
)
CLUSTER = _some(
    nodes=st.integers(1, 9) | st.integers(1, 10_000),
    gpus_per_node=st.integers(0, 16) | st.integers(0, 64),
    gpu=st.sampled_from(["h100", "H100", "t4", "a100-40gb", "b200", "H900", "cpu"]),
    gpu_overrides=_some(memory=st.sampled_from([1.0, 1e9, 8.5e10]), bandwidth=st.sampled_from([1e9, 1e13])),
    intra_node_link=st.sampled_from(["nvlink4", "pcie4", "string"]),
)
STATED = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {"name_or_path": MODELS}, optional={"dtype": st.sampled_from(["float16", "float32"])}
        )
    },
    optional={
        "data": _some(max_prompt_length=st.sampled_from([1, 202, 2000, 2**31 - 1])),
        "lora": _some(r=st.integers(1, 600), target_modules=st.sampled_from(["all-linear", ["q_proj"], ["wrong"]])),
        "rollout": ROLLOUTS,
        "grpo": GRPO,
        "distributed": DISTRIBUTED,
        "cluster": CLUSTER,
    },
)
"""What a YAML file could state, sensible or not."""


def with_data(stated: dict[str, Any]) -> dict[str, Any]:
    return {**stated, "data": {"name_or_path": "somewhere/problems", **stated.get("data", {})}}
