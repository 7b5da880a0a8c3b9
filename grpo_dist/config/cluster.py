"""What there is to run on, and how generation and training share it."""

from __future__ import annotations

from typing import Literal

from grpo_dist.config.section import NonNegative, Positive, Section


class RolloutSection(Section):
    """Who generates completions."""

    backend: Literal["transformers"] = "transformers"
    """`transformers`: the training processes generate with `model.generate`."""


class DistributedSection(Section):
    """How the training processes are laid out."""

    num_processes: Positive | None = None
    """Training processes in all. With GPUs: one per GPU (leave it out); on CPU: 1 when not given."""
    max_per_device_train_batch_size: Positive = 16
    """Most completions a process puts through one forward and backward pass; lower it when memory runs out."""


class ClusterSection(Section):
    """The machines."""

    nodes: Literal[1] = 1
    """Machines. One, for now."""
    gpus_per_node: NonNegative = 1
    """GPUs of a machine; 0 trains on CPU."""
