"""Models, workloads and layouts the timing tests share."""

from __future__ import annotations

from dataclasses import replace

from grpo_dist.plan.specs import Architecture, architecture_of
from grpo_dist.plan.specs.hardware import gpu, link
from grpo_dist.plan.time import Layout, Lengths, Workload

QWEN3_4B = architecture_of("Qwen/Qwen3-4B-Base")
ADAPTER = 66_060_288
"""Parameters of the recipe's adapter on it."""
RECIPE = Lengths(prompt=200, mean=1000, longest=1846)


QWEN25_1_5B = Architecture("qwen2", 1536, 8960, 28, 12, 2, 128, 151_936, 4096, tie_word_embeddings=True)


def workload(**changes: object) -> Workload:
    recipe = Workload(QWEN3_4B, 32, 16, RECIPE, ADAPTER, micro_batch=8)
    return replace(recipe, **changes)


def layout(nodes: int = 1, gpus: int = 8, name: str = "h100", **changes: object) -> Layout:
    """Colocated on all GPUs."""
    intra, inter = link(gpu(name).link), link("infiniband-ndr")
    return replace(Layout(gpu(name), intra, inter, nodes, gpus, trainer_gpus=nodes * gpus), **changes)
