"""Seconds one GPU trains on its share of a step.

FLOPs (Kaplan et al. 2020): 2 per weight and token forward, 2 for the gradient of the activations, 2 for the gradient of
the weights. LoRA freezes the weights, so the last 2 fall away: 4 instead of 6, and 6 instead of 8 with the forward
recomputed by gradient checkpointing (Chen et al. 2016). The adapter's own products, about 2 %, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from grpo_dist.plan.architecture import Architecture
from grpo_dist.plan.hardware import Gpu
from grpo_dist.plan.timing import model_work
from grpo_dist.plan.timing.efficiencies import DEFAULTS, Efficiencies
from grpo_dist.plan.timing.lengths import Lengths


@dataclass(frozen=True)
class Training:
    """One GPU's share of a step."""

    seconds: float
    """Forward and backward."""
    scoring_seconds: float
    """Forwards without gradient: old log-probabilities, reference model."""
    micro_steps: int
    tokens: float
    """Computed, padding included."""

    @property
    def how(self) -> str:
        """In words."""
        return f"{self.tokens:,.0f} tokens a GPU, padding included, in {self.micro_steps} micro-batches"


def training_time(
    architecture: Architecture,
    gpu: Gpu,
    lengths: Lengths,
    *,
    completions: int,
    micro_batch: int,
    lora: bool = True,
    checkpointing: bool = True,
    scoring_forwards: int = 0,
    efficiencies: Efficiencies = DEFAULTS,
) -> Training:
    """Forward and backward over `completions` sequences on one GPU, `micro_batch` at a time.

    Args:
        scoring_forwards: extra forwards without gradient: one for the old log-probabilities where the loss's own
            forward pass does not give them, and one for the reference model with beta > 0.
    """
    micro_steps = ceil(completions / micro_batch)
    batch = min(micro_batch, completions)
    one_layer = _layer_pass(architecture, gpu, batch * lengths.padded, lengths, efficiencies)
    layers = architecture.num_hidden_layers * max(one_layer, efficiencies.layer_launch(lora))
    head = _head_pass(architecture, gpu, batch * lengths.longest, efficiencies)
    backward = 1 if lora else 2
    passes = 1 + backward + (1 if checkpointing else 0)
    scale = efficiencies.training_scale * micro_steps
    return Training(
        seconds=scale * (passes * layers + (1 + backward) * head),
        scoring_seconds=scale * scoring_forwards * (layers + head),
        micro_steps=micro_steps,
        tokens=completions * lengths.padded,
    )


def _layer_pass(
    architecture: Architecture, gpu: Gpu, tokens: float, lengths: Lengths, efficiencies: Efficiencies
) -> float:
    """Seconds one layer takes for one pass over a micro-batch; causal attention sees half the sequence on average."""
    per_token = 2 * model_work.layer_parameters(architecture) + model_work.attention_flops(
        architecture, lengths.padded / 2
    )
    products = tokens * per_token / (gpu.flops * efficiencies.matmul)
    width = gpu.dtype_bytes * (architecture.hidden_size + architecture.intermediate_size)
    traffic = efficiencies.activation_passes * tokens * width / (gpu.bandwidth * efficiencies.streaming)
    return products + traffic


def _head_pass(architecture: Architecture, gpu: Gpu, tokens: float, efficiencies: Efficiencies) -> float:
    """Seconds of the output head over the completion tokens, the only ones scored."""
    return tokens * 2 * model_work.head_parameters(architecture) / (gpu.flops * efficiencies.matmul)
