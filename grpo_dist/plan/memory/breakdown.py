"""A memory estimate: named components in bytes, each with the origin of its number.

Also the estimates that no formula gives, each a named component, and the bytes of weights in a dtype or quantised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from grpo_dist.plan.specs import Architecture, Quantization


class Component(NamedTuple):
    name: str
    bytes: int
    source: str
    """The formula, with its numbers, or where an estimate was measured."""


@dataclass(frozen=True)
class Phase:
    """A part of a step and what it adds to what is always there."""

    name: str
    components: tuple[Component, ...]

    @property
    def total(self) -> int:
        return sum(component.bytes for component in self.components)


@dataclass(frozen=True)
class MemoryBreakdown:
    """Memory of one GPU in one role, in bytes."""

    role: str
    resident: tuple[Component, ...]
    """Held all the time."""
    phases: tuple[Phase, ...]
    """Only one of them exists at a time."""

    @property
    def peak_phase(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def components(self) -> tuple[Component, ...]:
        """What is held at the peak."""
        return self.resident + self.peak_phase.components

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(component.bytes for component in self.components)

    def fits(self, gpu_bytes: int) -> bool:
        return self.total <= gpu_bytes

    def largest(self) -> Component:
        """The component to look at first when it does not fit."""
        return max(self.components, key=lambda component: component.bytes)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        resident = sum(component.bytes for component in self.resident)
        return {
            "role": self.role,
            "total_bytes": self.total,
            "peak_phase": self.peak_phase.name,
            "phase_bytes": {phase.name: resident + phase.total for phase in self.phases},
            "components": [component._asdict() for component in self.components],
        }


def without_zeros(components: Iterable[Component]) -> tuple[Component, ...]:
    return tuple(component for component in components if component.bytes)


MIB = 2**20

CUDA_CONTEXT = 1587 * MIB
"""Memory used before anything is loaded: driver, CUDA context, kernels and cuBLAS workspaces of one process. vLLM's
logs report 1.1 to 1.55 GiB between a GPU's memory and what is free at its start; the larger value is used."""
NCCL_BUFFERS = 256 * MIB
"""Channels and buffers of one communicator (NCCL_BUFFSIZE 4 MiB × up to 32 channels × send and receive)."""
MARGIN = 0.08
"""Share added for fragmentation of PyTorch's caching allocator: replayed through a model of it, the allocations of a
step survive in 8 % more than their peak. With `expandable_segments` less is needed, which is not assumed."""


def process_overhead(num_processes: int) -> tuple[Component, ...]:
    """What a process holds outside PyTorch's allocator."""
    context = Component(
        "CUDA context", CUDA_CONTEXT, "estimate: gone before anything is loaded (1.1 to 1.55 GiB in vLLM's logs)"
    )
    nccl = Component("NCCL buffers", NCCL_BUFFERS, "estimate: one communicator, 4 MiB × 32 channels × 2")
    return (context, nccl) if num_processes > 1 else (context,)


def with_margin(resident: tuple[Component, ...], phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Every phase with the margin on all that PyTorch allocates in it."""
    held = sum(component.bytes for component in resident)
    return tuple(Phase(phase.name, (*phase.components, _margin(held + phase.total))) for phase in phases)


def _margin(allocated: int) -> Component:
    return Component(
        "margin", int(MARGIN * allocated), f"{MARGIN:.0%} of {allocated:,} allocated bytes, for fragmentation"
    )


Dtype = Literal["float32", "bfloat16", "float16"]

DTYPE_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}

NF4_BLOCK = 64
"""Weights that share one float32 scale in bitsandbytes' 4-bit format (Dettmers et al. 2023, section 3)."""


def weight_bytes(architecture: Architecture, dtype: Dtype, quantization: Quantization | None = None) -> int:
    """All weights of the model on one GPU.

    bitsandbytes quantises the decoder's linear layers; embedding, norms, biases and output head keep their dtype.
    """
    size = DTYPE_BYTES[dtype]
    if quantization is None:
        return architecture.parameters() * size
    linears = architecture.linears()
    layers = architecture.num_hidden_layers
    kept = architecture.parameters() - layers * sum(linear.weights for linear in linears)
    packed = sum(quantized_bytes(linear.out_features, linear.in_features, quantization) for linear in linears)
    return kept * size + layers * packed


def quantized_bytes(rows: int, columns: int, quantization: Quantization) -> int:
    """A (rows, columns) weight with its scales.

    8bit: one byte per weight and a float32 scale per row (Dettmers et al. 2022, LLM.int8, section 3.1).
    4bit: NF4, half a byte per weight and a float32 scale per block of 64, without double quantisation.
    """
    weights = rows * columns
    if quantization == "8bit":
        return weights + 4 * rows
    return -(-weights // 2) + 4 * -(-weights // NF4_BLOCK)
