"""One vLLM replica, on each of its GPUs, alone or beside a training process.

vLLM takes `gpu_memory_utilization` of the GPU's whole memory and gives what weights, adapters, the profiled peak of
activations and CUDA graphs leave to the KV cache (`vllm/v1/worker/gpu_worker.py::determine_available_memory`, vLLM
0.22–0.31). The CUDA context and NCCL are outside that budget: they exist before it is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from grpo_dist.errors import PlanError
from grpo_dist.plan.memory.breakdown import (
    DTYPE_BYTES,
    Component,
    Dtype,
    MemoryBreakdown,
    Phase,
    process_overhead,
    quantized_bytes,
    without_zeros,
)
from grpo_dist.plan.specs import Architecture, Linear

FLOAT32 = 4
BLOCK_TOKENS = 16
"""Tokens of a KV cache block (vLLM's default `block_size`)."""
VOCABULARY_PADDING = 64
"""vLLM pads the vocabulary to a multiple of this (`DEFAULT_VOCAB_PADDING_SIZE`)."""
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM accepts as `max_lora_rank`; an adapter of another rank gets the buffers of the next larger one."""
LARGEST_GRAPH = 512
"""Default bound of `max_cudagraph_capture_size`."""
GRAPH_BYTES = 180_000
"""Per layer and captured graph: vLLM estimated 0.52 GiB for 36 layers × 86 graphs of Qwen3-8B (LMCache #3430)."""
NON_TORCH = 128 * 2**20
"""Kernels and attention workspaces vLLM counts as non-torch memory; 0.1–0.3 GiB in its logs."""


@dataclass(frozen=True)
class RolloutSetup:
    """What decides a replica's memory; vLLM's spellings."""

    architecture: Architecture
    gpu_bytes: int
    max_model_len: int
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    dtype: Dtype = "bfloat16"
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    enforce_eager: bool = False
    """Without CUDA graphs."""
    max_lora_rank: int = 0
    """0: no adapter is served."""
    max_loras: int = 2
    """Adapters in one batch: see `served_loras`."""

    def __post_init__(self) -> None:
        if not 0 < self.gpu_memory_utilization <= 1:
            raise PlanError(
                f"gpu_memory_utilization: {self.gpu_memory_utilization:g} is no share of a GPU", hint="set 0.9"
            )
        heads, size = self.architecture.num_attention_heads, self.tensor_parallel_size
        if size < 1 or heads % size:
            raise PlanError(
                f"tensor_parallel_size: {size} does not divide the {heads} attention heads",
                hint=f"choose one of {', '.join(str(n) for n in _divisors(heads))}",
            )
        if self.max_lora_rank > SERVED_RANKS[-1]:
            raise PlanError(
                f"lora.r: vLLM serves no adapter of rank {self.max_lora_rank}", hint=f"at most {SERVED_RANKS[-1]}"
            )

    @property
    def key_value_heads(self) -> int:
        """Of one GPU: heads are repeated when there are fewer than GPUs."""
        return max(1, self.architecture.num_key_value_heads // self.tensor_parallel_size)

    @property
    def budget(self) -> int:
        """Bytes of one GPU that vLLM takes."""
        return int(self.gpu_bytes * self.gpu_memory_utilization)

    @property
    def activation_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]


def rollout_memory(setup: RolloutSetup) -> MemoryBreakdown:
    """The whole memory of a replica's GPU. The KV cache is what the rest of the budget leaves, possibly nothing: see
    `max_concurrency` for whether a single sequence fits."""
    fixed = without_zeros(_fixed(setup))
    cache = kv_cache_bytes(setup)
    share = f"{setup.gpu_memory_utilization:g} × {setup.gpu_bytes:,} bytes, less the rest"
    pool = Component("KV cache", cache, f"{kv_cache_tokens(setup):,} tokens: {share}")
    return MemoryBreakdown(
        "rollout", (*fixed, *process_overhead(setup.tensor_parallel_size)), (Phase("serve", (pool,)),)
    )


def kv_cache_tokens(setup: RolloutSetup) -> int:
    """Tokens whose keys and values the replica holds, in whole blocks."""
    room = setup.budget - _fixed_bytes(setup)
    return max(0, room // (_kv_bytes_per_token(setup) * BLOCK_TOKENS) * BLOCK_TOKENS)


def kv_cache_bytes(setup: RolloutSetup) -> int:
    """Bytes of those tokens."""
    return kv_cache_tokens(setup) * _kv_bytes_per_token(setup)


def max_concurrency(setup: RolloutSetup) -> int:
    """Sequences of full length that run at the same time; 0 if vLLM would refuse to start."""
    blocks = -(-setup.max_model_len // BLOCK_TOKENS)
    return min(setup.max_num_seqs, kv_cache_tokens(setup) // (blocks * BLOCK_TOKENS))


def minimum_utilization(setup: RolloutSetup, concurrency: int = 1) -> float:
    """The least `gpu_memory_utilization`, in hundredths, that holds this many sequences; above 1 if none does."""
    blocks = -(-setup.max_model_len // BLOCK_TOKENS) * concurrency
    needed = _fixed_bytes(setup) + blocks * BLOCK_TOKENS * _kv_bytes_per_token(setup)
    return -(-needed * 100 // setup.gpu_bytes) / 100


def _fixed_bytes(setup: RolloutSetup) -> int:
    return sum(component.bytes for component in _fixed(setup))


def _fixed(setup: RolloutSetup) -> Iterator[Component]:
    """What is allocated before the KV cache."""
    kind, size = setup.architecture.quantization or setup.dtype, setup.tensor_parallel_size
    yield Component("weights", _weights(setup), f"{kind}, tensor_parallel_size {size}")
    rank = served_rank(setup.max_lora_rank)
    yield Component("adapter slots", _adapter_slots(setup, rank), f"max_loras {setup.max_loras} of rank {rank}")
    yield Component(
        "activation peak",
        _activation_peak(setup),
        f"profile run: {setup.max_num_batched_tokens:,} tokens in a layer, {setup.max_num_seqs} in the sampler",
    )
    graphs = _captured_graphs(setup)
    held = graphs * setup.architecture.num_hidden_layers * GRAPH_BYTES
    yield Component("CUDA graphs", held, f"estimate: {graphs} graphs × layers × {GRAPH_BYTES:,} bytes")
    yield Component("vLLM workspaces", NON_TORCH, "estimate: non-torch memory in vLLM's logs")


def served_rank(r: int) -> int:
    """The smallest rank vLLM accepts that holds r; 0 for none."""
    return 0 if r == 0 else next(rank for rank in SERVED_RANKS if rank >= r)


def served_loras(max_staleness: int) -> int:
    """vLLM's `max_loras`: one adapter for each policy whose completions are being written, and one more: a new policy
    is loaded before the oldest is unloaded."""
    return max_staleness + 2


def _weights(setup: RolloutSetup) -> int:
    """Linear layers and vocabulary are split, norms and the biases of row-split layers are not."""
    a, size = setup.architecture, setup.tensor_parallel_size
    multiple = VOCABULARY_PADDING * size
    rows = -(-a.vocab_size // multiple) * multiple // size
    tables = (1 if a.tie_word_embeddings else 2) * rows * a.hidden_size
    linears = a.num_hidden_layers * sum(_linear_bytes(setup, _local(setup, linear)) for linear in a.linears())
    return (tables + a.num_hidden_layers * a.norm_parameters() + a.hidden_size) * setup.activation_bytes + linears


def _linear_bytes(setup: RolloutSetup, linear: Linear) -> int:
    """Bytes of a GPU's part: vLLM does not quantise, it serves weights as stored."""
    kind, size = setup.architecture.quantization, setup.activation_bytes
    if kind is None:
        return linear.parameters() * size
    biases = linear.parameters() - linear.weights
    return quantized_bytes(linear.out_features, linear.in_features, kind) + biases * size


def _local(setup: RolloutSetup, linear: Linear) -> Linear:
    """A GPU's part of a linear layer: Shoeybi et al. 2019 (Megatron-LM), section 3."""
    size = setup.tensor_parallel_size
    if linear.name in ("o_proj", "down_proj"):
        return Linear(linear.name, linear.in_features // size, linear.out_features, linear.bias)
    keys = setup.key_value_heads * setup.architecture.head_dim
    queries = setup.architecture.query_size // size
    widths = {"k_proj": keys, "v_proj": keys, "qkv_proj": queries + 2 * keys}
    return Linear(linear.name, linear.in_features, widths.get(linear.name, linear.out_features // size), linear.bias)


def _adapter_slots(setup: RolloutSetup, rank: int) -> int:
    """Buffers for A and B of every linear layer, whichever an adapter targets (`vllm/lora/layers`). A is whole on every
    GPU where a layer is split by columns, B where it is split by rows."""
    a = setup.architecture
    layer = sum(_local(setup, linear).lora_parameters(rank) for linear in a.linears())
    return setup.max_loras * a.num_hidden_layers * layer * setup.activation_bytes if rank else 0


def _activation_peak(setup: RolloutSetup) -> int:
    """The wider of a layer's MLP (gate, up, their product, hidden states, residual) over `max_num_batched_tokens`, and
    the sampler (logits, float32 copy, probabilities, one sorted copy) over `max_num_seqs`."""
    a, c = setup.architecture, setup.activation_bytes
    mlp = 3 * a.intermediate_size // setup.tensor_parallel_size + 2 * a.hidden_size
    tokens = setup.max_num_batched_tokens
    return max(tokens * mlp * c, min(setup.max_num_seqs, tokens) * a.vocab_size * (c + 3 * FLOAT32))


def _captured_graphs(setup: RolloutSetup) -> int:
    """Sizes 1, 2, 4, every 8 below 256, every 16 up to the largest: piecewise for all, whole for decoding
    (`VllmConfig._set_cudagraph_sizes`, FULL_AND_PIECEWISE); with an adapter all of them twice, with it and without
    (`cudagraph_specialize_lora`)."""
    if setup.enforce_eager:
        return 0
    largest = min(2 * setup.max_num_seqs, LARGEST_GRAPH)
    sizes = [n for n in (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)) if n <= largest]
    captured = len(sizes) + sum(size <= setup.max_num_seqs for size in sizes)
    return 2 * captured if setup.max_lora_rank else captured


def _kv_bytes_per_token(setup: RolloutSetup) -> int:
    a = setup.architecture
    return 2 * a.num_hidden_layers * setup.key_value_heads * a.head_dim * setup.activation_bytes


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


ASLEEP = ("CUDA graphs", "vLLM workspaces")
"""What a sleeping vLLM engine keeps: `LLM.sleep` frees weights, adapters and KV cache (vLLM docs, Sleep Mode)."""
SHARED = ("CUDA context", "NCCL buffers")
"""Colocated vLLM runs in the trainer's process."""


def colocated_memory(trainer: MemoryBreakdown, rollout: MemoryBreakdown, *, sleep: bool) -> MemoryBreakdown:
    """Both on one GPU: side by side all the time, or (`vllm_enable_sleep_mode`) vLLM asleep while the model trains."""
    engine = tuple(component for component in rollout.components if component.name not in SHARED)
    if not sleep:
        return MemoryBreakdown("colocate", trainer.resident + _named(engine), trainer.phases)
    asleep = tuple(component for component in engine if component.name in ASLEEP)
    awake = tuple(component for component in engine if component.name not in ASLEEP)
    serve = Phase("serve", _named(awake))
    return MemoryBreakdown("colocate with sleep", trainer.resident + _named(asleep), (*trainer.phases, serve))


def _named(components: tuple[Component, ...]) -> tuple[Component, ...]:
    return tuple(component._replace(name=_name(component.name)) for component in components)


def _name(name: str) -> str:
    return name if name.startswith("vLLM") else f"vLLM {name}"
