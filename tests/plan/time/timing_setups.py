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


def first_qwen(hidden: int, mlp: int, layers: int) -> Architecture:
    """The first Qwen's shape: no grouped keys, untied head."""
    heads = hidden // 128
    return Architecture(
        "qwen", hidden, mlp, layers, heads, heads, 128, vocab_size=151_936, max_position_embeddings=8192
    )


QWEN_1_8B, QWEN_7B = first_qwen(2048, 5504, 24), first_qwen(4096, 11_008, 32)
QWEN_14B, QWEN_72B = first_qwen(5120, 13_696, 40), first_qwen(8192, 24_576, 80)
QWEN25_1_5B = Architecture("qwen2", 1536, 8960, 28, 12, 2, 128, 151_936, 4096, tie_word_embeddings=True)


def workload(**changes: object) -> Workload:
    recipe = Workload(QWEN3_4B, 32, 16, RECIPE, ADAPTER, micro_batch=8)
    return replace(recipe, **changes)


def layout(nodes: int = 1, gpus: int = 8, name: str = "h100", **changes: object) -> Layout:
    """Colocated on all GPUs."""
    intra, inter = link(gpu(name).link), link("infiniband-ndr")
    return replace(Layout(gpu(name), intra, inter, nodes, gpus, trainer_gpus=nodes * gpus), **changes)
