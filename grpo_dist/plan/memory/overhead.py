"""What no formula gives: estimates, each named, none hidden in another component."""

from __future__ import annotations

from grpo_dist.plan.memory.breakdown import Component, Phase

MIB = 2**20

CUDA_CONTEXT = 512 * MIB
"""CUDA context, loaded kernels and cuBLAS workspaces of one process; 0.4–0.6 GiB on A100 and H100."""
NCCL_BUFFERS = 256 * MIB
"""Channels and buffers of one communicator (NCCL_BUFFSIZE 4 MiB × up to 32 channels × send and receive)."""
MARGIN = 0.05
"""Share added for fragmentation of PyTorch's caching allocator and for what no component names."""


def process_overhead(num_processes: int) -> tuple[Component, ...]:
    """What a process holds outside PyTorch's allocator."""
    context = Component("CUDA context", CUDA_CONTEXT, "estimate: context, kernels and cuBLAS workspaces of a process")
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
