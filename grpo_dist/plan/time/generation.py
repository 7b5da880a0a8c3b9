"""Seconds to generate one step's completions.

Roofline (Williams et al. 2009; for decoding Pope et al. 2022): a decode step reads every weight and the KV cache of all
running sequences once, so memory bandwidth bounds it until hundreds of sequences run; prefill is bound by FLOP/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from grpo_dist.errors import PlanError
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.hardware import Gpu, Link
from grpo_dist.plan.time import network, training
from grpo_dist.plan.time.efficiencies import DEFAULTS, Efficiencies
from grpo_dist.plan.time.lengths import Lengths

RESERVE = 2 * 2**30
"""Bytes vLLM keeps per GPU beside weights and KV cache: CUDA graphs and the activations of a full prefill."""


LONGEST_SHARE = 0.75
"""Share of generation from which it counts as waiting for its longest completion."""


@dataclass(frozen=True)
class Generation:
    """One step's generation on the replica with the most work."""

    seconds: float
    prefill_seconds: float
    decode_seconds: float
    steps: float
    """Decode steps until the last completion is done."""
    concurrency: int
    """Sequences a replica runs at a time."""
    completions: int
    """Sequences the replica has to generate."""
    bound_by_longest: bool = False
    """Whether one completion takes most of it, so that more replicas do not help."""

    @property
    def how(self) -> str:
        """In words."""
        text = f"{self.completions} completions a replica, {self.concurrency} at a time, {self.steps:,.0f} decode steps"
        return f"{text}; bound by the longest: more nodes do not help" if self.bound_by_longest else text


def kv_pool(architecture: Architecture, gpu: Gpu, *, utilization: float, tensor_parallel: int = 1) -> float:
    """Bytes of KV cache on each GPU of a replica: its share of memory less weights and a reserve; negative if none."""
    weights = gpu.dtype_bytes * architecture.parameters()
    return gpu.memory * utilization - weights / tensor_parallel - RESERVE


def generation_time(
    architecture: Architecture,
    gpu: Gpu,
    lengths: Lengths,
    *,
    completions: int,
    num_generations: int,
    replicas: int,
    kv_pool_bytes: float,
    link: Link,
    tensor_parallel: int = 1,
    max_num_seqs: int = 256,
    lora: bool = True,
    efficiencies: Efficiencies = DEFAULTS,
) -> Generation:
    """vLLM: continuous batching, the group's prompt prefilled once (prefix caching), completions spread evenly.

    A slot that becomes free is taken by the next waiting completion, so the last one ends after about (completions /
    concurrency − 1) mean lengths and one longest (list scheduling: Graham 1969).

    Args:
        completions: of the step, over all replicas.
        kv_pool_bytes: on each GPU.
        link: between the GPUs of a replica.
        lora: the adapter is served unmerged.

    Raises:
        PlanError: the KV cache cannot hold one sequence.
    """
    share = ceil(completions / replicas)
    cache = training.kv_bytes(architecture, gpu) / min(tensor_parallel, architecture.num_key_value_heads)
    concurrency = min(share, max_num_seqs, _sequences(cache, kv_pool_bytes, lengths, gpu))
    steps = lengths.longest + max(0.0, share / concurrency - 1) * lengths.mean
    weights = steps * training.read_bytes(architecture, gpu) / tensor_parallel / _decode_bandwidth(gpu, efficiencies)
    compute = share * lengths.mean * _forward(architecture, gpu, tensor_parallel, efficiencies)
    attention = (
        share * (lengths.mean * lengths.prompt + lengths.mean_square / 2) * cache / _decode_bandwidth(gpu, efficiencies)
    )
    fixed = steps * _step_overhead(architecture, tensor_parallel, link, lora, efficiencies)
    decode = max(weights, compute) + attention + fixed
    prompts = ceil(share / num_generations)
    prefill = prompts * lengths.prompt * _forward(architecture, gpu, tensor_parallel, efficiencies)
    scale = efficiencies.generation_scale
    # The time of a single completion: no number of replicas reduces it.
    floor = (max(weights, 0.0) + fixed) * lengths.longest / steps
    return Generation(
        scale * (prefill + decode),
        scale * prefill,
        scale * decode,
        steps,
        concurrency,
        share,
        bound_by_longest=floor > LONGEST_SHARE * (prefill + decode),
    )


def transformers_time(
    architecture: Architecture,
    gpu: Gpu,
    lengths: Lengths,
    *,
    completions: int,
    processes: int,
    lora: bool = True,
    efficiencies: Efficiencies = DEFAULTS,
) -> Generation:
    """`model.generate` in every training process: one batch, all sequences padded until the longest is done.

    Each step launches every layer from Python, and `DynamicCache` copies the cache to append to it (read, write, and
    the read of attention).
    """
    share = ceil(completions / processes)
    bandwidth = _decode_bandwidth(gpu, efficiencies)
    launch = architecture.num_hidden_layers * efficiencies.layer_launch(lora)
    context = lengths.prompt + lengths.longest / 2
    traffic = (
        training.read_bytes(architecture, gpu) + 3 * share * context * training.kv_bytes(architecture, gpu)
    ) / bandwidth
    compute = share * _forward(architecture, gpu, 1, efficiencies)
    decode = lengths.longest * max(launch, traffic, compute)
    prefill = share * lengths.prompt * _forward(architecture, gpu, 1, efficiencies)
    scale = efficiencies.generation_scale
    return Generation(scale * (prefill + decode), scale * prefill, scale * decode, lengths.longest, share, share)


def _sequences(cache: float, pool: float, lengths: Lengths, gpu: Gpu) -> int:
    """Sequences of mean length that fit the pool at a time; the longest has to fit too."""
    needed = cache * (lengths.prompt + lengths.longest)
    if pool < needed:
        raise PlanError(
            f"one sequence of {lengths.prompt + lengths.longest:,.0f} tokens needs {needed / 1e9:.2f} GB of KV cache "
            f"on each {gpu.name}, where {max(pool, 0) / 1e9:.2f} GB are left after the weights",
            hint="raise gpu_memory_utilization or tensor parallelism, or shorten max_completion_length",
        )
    return max(1, int(pool / (cache * (lengths.prompt + lengths.mean))))


def _decode_bandwidth(gpu: Gpu, efficiencies: Efficiencies) -> float:
    return gpu.bandwidth * efficiencies.decode_bandwidth


def _forward(architecture: Architecture, gpu: Gpu, tensor_parallel: int, efficiencies: Efficiencies) -> float:
    """Seconds per token at the FLOP/s roof: 2 FLOPs per weight."""
    return 2 * training.matmul_parameters(architecture) / (gpu.flops * efficiencies.matmul * tensor_parallel)


def _step_overhead(
    architecture: Architecture, tensor_parallel: int, link: Link, lora: bool, efficiencies: Efficiencies
) -> float:
    """Seconds of a decode step that depend on neither weights nor sequences."""
    layer = efficiencies.lora_layer_seconds if lora else 0.0
    if tensor_parallel > 1:
        # Megatron-style sharding sums the activations twice a layer (Shoeybi et al. 2019).
        layer += 2 * network.latency(tensor_parallel, 1, link, link, efficiencies)
    return efficiencies.decode_step_seconds + architecture.num_hidden_layers * layer
