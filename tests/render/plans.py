"""Plans of every kind that is rendered."""

from __future__ import annotations

from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.plan import LaunchPlan, plan_run

SERVER = {"backend": "vllm", "mode": "server"}
COLOCATE = {"backend": "vllm", "mode": "colocate"}

LAYOUTS: dict[str, dict[str, Any]] = {
    "cpu": {"gpus": 0},
    "two processes on CPU": {"gpus": 0, "num_processes": 2},
    "one GPU": {"gpus": 1},
    "a node": {"gpus": 8},
    "half a node": {"gpus": 8, "num_processes": 4},
    "a node, colocate": {"gpus": 8, "rollout": COLOCATE},
    "4 nodes, colocate": {"nodes": 4, "rollout": COLOCATE},
    "a rollout node": {"nodes": 2, "rollout": {**SERVER, "nodes": 1}},
    "rollout GPUs": {"gpus": 8, "rollout": {**SERVER, "nodes": 0}},
    "zero1": {"strategy": "zero1"},
    "zero2, 2 nodes": {"strategy": "zero2", "nodes": 2},
    "zero2 on CPU": {"strategy": "zero2", "gpus": 0, "num_processes": 2},
    "zero3, 16 nodes": {"strategy": "zero3", "nodes": 16},
    "zero3 on CPU": {"strategy": "zero3", "gpus": 0, "num_processes": 2, "model": {"dtype": "float32"}},
    "zero3, float16": {"strategy": "zero3", "model": {"dtype": "float16"}},
    "fsdp2": {"strategy": "fsdp2"},
    "fsdp2, 4 nodes": {"strategy": "fsdp2", "nodes": 4},
}


def planned(
    *,
    nodes: int = 1,
    gpus: int = 8,
    strategy: str = "ddp",
    num_processes: int | None = None,
    model: dict[str, Any] | None = None,
    rollout: dict[str, Any] | None = None,
    **sections: dict[str, Any],
) -> tuple[RunConfig, LaunchPlan]:
    """A configuration of 8 completions for each of 16 prompts, and its plan."""
    base = {
        "model": {"name_or_path": "embedded" if gpus == 0 else "Qwen/Qwen3-4B-Base", **(model or {})},
        "data": {"name_or_path": "open-r1/DAPO-Math-17k-Processed", "max_prompt_length": 512},
        "rewards": {"functions": ["strict"]},
        "grpo": {"prompts_per_step": 16, "num_generations": 8, "max_completion_length": 512},
        "rollout": rollout or {},
        "distributed": {"strategy": strategy, "num_processes": num_processes},
        "cluster": {"nodes": nodes, "gpus_per_node": gpus, **sections.pop("cluster", {})},
    }
    config = RunConfig.model_validate({**base, **sections})
    return config, plan_run(config)


def layout(name: str) -> tuple[RunConfig, LaunchPlan]:
    """One of LAYOUTS."""
    return planned(**LAYOUTS[name])
