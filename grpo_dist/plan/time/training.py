"""Seconds one GPU trains on its share of a step, and what one token costs a dense decoder.

FLOPs (Kaplan et al. 2020): 2 per weight and token forward, 2 for the gradient of the activations, 2 for the gradient of
the weights. LoRA freezes the weights, so the last 2 are not needed: 4 instead of 6, and 6 instead of 8 with the forward
recomputed by gradient checkpointing (Chen et al. 2016). The adapter's own products, about 2 %, are neglected.

The learning rate is scaled to more or fewer completions per step here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal, NamedTuple

from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.hardware import Gpu
from grpo_dist.plan.time.efficiencies import DEFAULTS, Efficiencies
from grpo_dist.plan.time.lengths import Lengths


def layer_parameters(architecture: Architecture) -> int:
    """Weights a token is multiplied with in one layer."""
    return architecture.attention_parameters() + architecture.mlp_parameters()


def head_parameters(architecture: Architecture) -> int:
    """Weights of the output head, its own or the embedding's."""
    return architecture.embedding_parameters()


def matmul_parameters(architecture: Architecture) -> int:
    """Weights a token is multiplied with in all; the embedding table is only looked up."""
    return architecture.num_hidden_layers * layer_parameters(architecture) + head_parameters(architecture)


def read_bytes(architecture: Architecture, gpu: Gpu) -> int:
    """Bytes a decode step reads: every matrix once."""
    return gpu.dtype_bytes * matmul_parameters(architecture)


def kv_bytes(architecture: Architecture, gpu: Gpu) -> int:
    """Bytes of keys and values per token, all layers."""
    return architecture.kv_bytes_per_token(gpu.dtype_bytes)


def attention_flops(architecture: Architecture, context: float) -> float:
    """FLOPs per token and layer of QKᵀ and of the weighted sum over `context` positions: 2 × 2 × context × width."""
    return 4.0 * context * architecture.query_size


Padding = Literal["step", "batch", "none"]
"""What a micro-batch is cut to (`training/trainer/micro_batches.py`): `step`: its own longest, those of a step
sorted by length; `batch`: the same, unsorted; `none`: it is not cut, all are as long as the longest of the step."""

SAMPLED = 64
"""Most micro-batches that are evaluated."""


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
        batches = f"{self.micro_steps} micro-batch{'' if self.micro_steps == 1 else 'es'}"
        return f"{self.tokens:,.0f} tokens a GPU, padding included, in {batches}"


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
    padding: Padding = "step",
    eager: bool = False,
    efficiencies: Efficiencies = DEFAULTS,
) -> Training:
    """Forward and backward over `completions` sequences on one GPU, `micro_batch` at a time.

    Args:
        eager: attention writes all scores to memory.
        scoring_forwards: extra forwards without gradient: one for the old log-probabilities where the loss's own
            forward pass does not give them, and one for the reference model with beta > 0.
    """
    micro_steps = ceil(completions / micro_batch)
    batch = min(micro_batch, completions)
    backward = 1 if lora else 2
    passes = 1 + backward + (1 if checkpointing else 0)
    one = _Pass(architecture, gpu, batch, lora, eager, efficiencies)
    seconds = tokens = 0.0
    widths = list(_widths(lengths, completions, batch, padding))
    for prompt, completion in widths:
        layers, head = one.seconds(prompt, completion)
        seconds += passes * layers + (1 + backward) * head
        tokens += batch * (prompt + completion)
    # TRL scores before anything is cut.
    padded = sum(one.seconds(lengths.padded - lengths.longest, lengths.longest)) if scoring_forwards else 0.0
    scale = efficiencies.training_scale * micro_steps
    return Training(
        seconds=scale * seconds / len(widths),
        scoring_seconds=scale * scoring_forwards * padded,
        micro_steps=micro_steps,
        tokens=tokens * completions / batch / len(widths),
    )


def _widths(lengths: Lengths, completions: int, batch: int, padding: Padding) -> Iterator[tuple[float, float]]:
    """(prompt, completion) that micro-batches are padded to; an evenly spaced selection if there are many."""
    prompt = lengths.prompt_of(batch)
    if padding == "none":
        yield lengths.padded - lengths.longest, lengths.longest
    elif padding == "batch":
        yield prompt, lengths.completion(batch, batch)
    else:
        count = ceil(completions / batch)
        looked_at = min(count, SAMPLED)
        for number in range(looked_at):
            skipped = int((number + 0.5) * count / looked_at) * batch
            yield prompt, lengths.completion(completions - skipped, completions)


@dataclass(frozen=True)
class _Pass:
    """One pass over a micro-batch."""

    architecture: Architecture
    gpu: Gpu
    sequences: int
    lora: bool
    eager: bool
    efficiencies: Efficiencies

    def seconds(self, prompt: float, completion: float) -> tuple[float, float]:
        """Of all layers, and of the output head over the completion tokens, the only ones scored."""
        one_layer = self._layer(prompt + completion)
        layers = self.architecture.num_hidden_layers * max(one_layer, self.efficiencies.layer_launch(self.lora))
        return layers, _head_pass(self.architecture, self.gpu, self.sequences * completion, self.efficiencies)

    def _layer(self, length: float) -> float:
        """One layer; causal attention sees half the sequence on average."""
        a, gpu, tokens = self.architecture, self.gpu, self.sequences * length
        linear = 2 * layer_parameters(a) / self.efficiencies.matmul
        attention = attention_flops(a, length / 2) / self.efficiencies.attention
        products = tokens * (linear + attention) / gpu.flops
        width = gpu.dtype_bytes * (a.hidden_size + a.intermediate_size)
        moved = self.efficiencies.activation_passes * width
        if self.eager:
            moved += self.efficiencies.eager_score_bytes * a.num_attention_heads * length
        return products + tokens * moved / (gpu.bandwidth * self.efficiencies.streaming)


def _head_pass(architecture: Architecture, gpu: Gpu, tokens: float, efficiencies: Efficiencies) -> float:
    """Seconds of the output head over the completion tokens, the only ones scored."""
    return tokens * 2 * head_parameters(architecture) / (gpu.flops * efficiencies.matmul)


LINEAR = {"sgd"}
DERIVED = ("adam", "rmsprop")
"""Optimizers, by the start of or a part of their Transformers name, for which the square root rule was derived."""


class LearningRateAdvice(NamedTuple):
    """A starting value, not a rule."""

    learning_rate: float
    factor: float
    text: str
    source: str


def learning_rate_advice(
    learning_rate: float, completions_before: int, completions_after: int, optim: str = "adamw_torch"
) -> LearningRateAdvice:
    """Scale a learning rate with the completions of a step.

    Adam and RMSprop: by the square root (Malladi et al. 2022, On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms). SGD: linearly (Goyal et al. 2017). Both hold while gradient noise dominates, below the critical batch
    size (McCandlish et al. 2018), and neither was derived for GRPO.
    """
    ratio = completions_after / completions_before
    rule, factor, source = _rule(optim, ratio)
    value = learning_rate * factor
    if ratio == 1:
        text = f"{learning_rate:.3g}: a step has as many completions as before"
    else:
        text = (
            f"{value:.3g} = {learning_rate:.3g} × {factor:.3g} ({rule} of {completions_after} / {completions_before} "
            f"completions); a value to start from, and an upper one once larger batches stop helping"
        )
    return LearningRateAdvice(value, factor, text, source)


def _rule(optim: str, ratio: float) -> tuple[str, float, str]:
    if optim in LINEAR:
        return "linear in the ratio", ratio, "Goyal et al. 2017, Accurate, Large Minibatch SGD (arXiv 1706.02677)"
    source = "Malladi et al. 2022, On the SDEs and Scaling Rules for Adaptive Gradient Algorithms (arXiv 2205.10287)"
    if not any(name in optim for name in DERIVED):
        source += f"; derived for Adam and RMSprop, carried over to {optim}"
    return "square root", sqrt(ratio), source
