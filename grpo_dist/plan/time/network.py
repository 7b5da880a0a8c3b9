"""Seconds that bytes spend between GPUs: gradients, partitioned weights, and the policy sent to the replicas.

Collective = latency of NCCL's tree + bytes over the slowest link of its ring (NCCL, src/graph/tuning.cc).
"""

from __future__ import annotations

from math import ceil, log2

from grpo_dist.plan.specs.hardware import Gpu, Link
from grpo_dist.plan.time.efficiencies import DEFAULTS, Efficiencies


def latency(ranks: int, nodes: int, intra: Link, inter: Link, efficiencies: Efficiencies = DEFAULTS) -> float:
    """Seconds of an empty collective: chain inside a node, tree between nodes, up and down."""
    hops = (ceil(ranks / nodes) - 1) * intra.latency + ceil(log2(nodes)) * inter.latency
    return efficiencies.collective_seconds + 2 * hops


def gather_time(
    size: float, ranks: int, nodes: int, intra: Link, inter: Link, efficiencies: Efficiencies = DEFAULTS
) -> float:
    """All-gather (or reduce-scatter) of `size` bytes in all: every rank receives (ranks − 1) / ranks of them.

    inter: the link from one node to the others, all its ports together.
    """
    if ranks <= 1:
        return 0.0
    slowest = min(intra.bandwidth, inter.bandwidth) if nodes > 1 else intra.bandwidth
    moved = size * (ranks - 1) / ranks
    return latency(ranks, nodes, intra, inter, efficiencies) + moved / (slowest * efficiencies.link)


def gradient_sync_time(
    trainable: int,
    ranks: int,
    nodes: int,
    intra: Link,
    inter: Link,
    efficiencies: Efficiencies = DEFAULTS,
    *,
    bytes_per_gradient: int = 4,
) -> float:
    """All-reduce of the gradients, once per optimizer step: a reduce-scatter and an all-gather.

    PEFT keeps adapters, and so their gradients, in 32 bit.
    """
    return 2 * gather_time(trainable * bytes_per_gradient, ranks, nodes, intra, inter, efficiencies)


def adapter_sync_time(size: float, readers: int, link: Link, efficiencies: Efficiencies = DEFAULTS) -> float:
    """Adapter to a file system and from there, all over one link, to `readers` nodes; each replica then loads it.

    Replicas of one node share one read. Qwen3-4B, r = 32: 132,120,576 bytes in 16 bit.
    """
    return size * (1 + readers) / (link.bandwidth * efficiencies.link) + efficiencies.adapter_load_seconds


def merged_sync_time(size: float, gpu: Gpu, link: Link | None, efficiencies: Efficiencies = DEFAULTS) -> float:
    """Merge, broadcast all weights (NCCL pipelines it: the size once, however many replicas), unmerge.

    Without a link the weights remain on their GPU. Merging, copying and unmerging each read and write every weight.
    Qwen3-4B: 8,044,936,192 bytes in 16 bit.
    """
    memory = 2 * size / (gpu.bandwidth * efficiencies.streaming)
    copying = memory if link is None else size / (link.bandwidth * efficiencies.link)
    return 2 * memory + copying
