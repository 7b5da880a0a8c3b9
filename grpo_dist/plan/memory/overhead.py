"""What no formula gives: estimates, each named, none hidden in another component."""

from __future__ import annotations

from grpo_dist.plan.memory.breakdown import Component, Phase

MIB = 2**20

CUDA_CONTEXT = 1587 * MIB
"""What is gone before anything is loaded: driver, CUDA context, kernels and cuBLAS workspaces of one process. vLLM's
logs report 1.1 to 1.55 GiB between a GPU's memory and what is free at its start; the most is counted."""
NCCL_BUFFERS = 256 * MIB
"""Channels and buffers of one communicator (NCCL_BUFFSIZE 4 MiB × up to 32 channels × send and receive)."""
MARGIN = 0.08
"""Share added for fragmentation of PyTorch's caching allocator: replayed through a model of it, the allocations of a
step survive in 8 % more than their peak. With `expandable_segments` less is needed, which is not counted on."""


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
