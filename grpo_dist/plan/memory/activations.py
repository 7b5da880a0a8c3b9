"""Tensors that a forward pass keeps for the backward pass, in bytes: of the layers, the adapter and the output head.

Korthikanti et al. 2022 (Reducing Activation Recomputation in Large Transformer Models), equation 1, count what each
operation of a layer keeps. The same is counted here for what Transformers 5 runs: RMS norms computed in float32,
grouped keys and values, a gated MLP with three tensors of the intermediate size, scaled dot-product attention that
keeps its output and one number per row. A frozen linear layer keeps no input (its gradient needs only its weight); a
LoRA branch keeps the layer's input and its own r-wide intermediate, and if the adapter's dtype differs from the
activations' PEFT casts that input, so every adapted layer keeps its own copy. The tests compare the count with the
tensors PyTorch actually keeps.

Symbols: h hidden, i intermediate, q query heads × head_dim, k key heads × head_dim, r rank; c bytes of an activation.

TRL ≥ 1.15 never holds the logits of a batch: `trl/kernels/chunked_logprob.py` projects tiles of 4,096 tokens × 32,768
vocabulary entries, folds each into running sums, and projects them again for the backward pass. Only completion tokens
are scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grpo_dist.plan.memory.breakdown import Component
from grpo_dist.plan.specs import Architecture, Linear


@dataclass(frozen=True)
class Lora:
    """Rank and targets of a LoRA adapter."""

    r: int
    target_modules: str | tuple[str, ...]

    def parameters(self, architecture: Architecture) -> int:
        return architecture.lora_parameters(self.r, self.target_modules)

    def targeted(self, architecture: Architecture) -> tuple[Linear, ...]:
        return architecture.targeted(self.target_modules)


AttentionName = Literal["sdpa", "flash_attention_2", "eager"]

FLOAT32 = 4


@dataclass(frozen=True)
class Pass:
    """One micro-batch going through the decoder."""

    architecture: Architecture
    sequences: int
    length: int
    """Tokens of a sequence, prompt and completion, with padding."""
    activation_bytes: int
    lora: Lora | None
    """None: every parameter is trained."""
    casts_inputs: bool
    """The adapter's dtype is not the activations': PEFT casts every adapted layer's input."""
    attention: AttentionName = "sdpa"

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    @property
    def masked(self) -> bool:
        """Sequences of different lengths: sdpa gets a mask, and with a mask Transformers repeats keys and values for
        every query head (`integrations/sdpa_attention.py::use_gqa_in_sdpa`)."""
        return self.attention == "sdpa"

    @property
    def repeats_keys(self) -> bool:
        return self.attention in ("sdpa", "eager")

    @property
    def adapted(self) -> tuple[Linear, ...]:
        return () if self.lora is None else self.lora.targeted(self.architecture)


def saved_bytes(run: Pass, *, checkpointing: bool) -> int:
    """All tensors kept between the forward and the backward pass, from the embedding to the last norm."""
    layers = run.architecture.num_hidden_layers
    if not checkpointing:
        return layers * layer_bytes(run) + _outside(run)
    inputs = layers * run.activation_bytes * run.architecture.hidden_size * run.tokens
    return inputs + _outside(run)


def working_bytes(run: Pass, *, checkpointing: bool) -> int:
    """Temporary tensors while a layer is differentiated: with checkpointing, also its recomputed activations.

    The widest point is the MLP, or the softmax of eager attention, which is differentiated after the MLP. In the MLP
    the gradient of an i-wide tensor arrives from the frozen weight (c) and from the LoRA branch (float32 where its
    input was cast, else c), in addition to the gradient of the hidden states.
    """
    h, i, c = run.architecture.hidden_size, run.architecture.intermediate_size, run.activation_bytes
    second = FLOAT32 if run.casts_inputs else c
    gradients = max(run.tokens * (i + h) * (c + second), _score_gradients(run) - _freed_before_scores(run))
    return gradients + (layer_bytes(run) + _shared_mask(run) if checkpointing else 0)


def forward_bytes(run: Pass) -> int:
    """What one layer holds at a time if nothing is kept: its widest point, MLP or attention.

    In the MLP the activated gate, the frozen layer's output, the LoRA branch's and a float32 cast or sum; in attention
    normalised float32 queries, rotated queries and repeated keys and values.
    """
    a, c = run.architecture, run.activation_bytes
    mlp = (3 * c + FLOAT32) * a.intermediate_size
    attention = (FLOAT32 + 2 * c) * a.query_size + 4 * c * a.key_value_size
    return run.tokens * (max(mlp, attention) + a.hidden_size * (2 * c + 2 * FLOAT32))


def layer_bytes(run: Pass) -> int:
    """What one layer keeps."""
    per_token = _norms(run) + _linear_inputs(run) + _lora_middles(run) + _attention(run) + _mlp(run)
    return run.tokens * per_token + _score_bytes(run) + _cast_weights(run)


def _norms(run: Pass) -> int:
    """The float32 input and its reciprocal root; if the weight is trained, also the normalised input."""
    a, trained = run.architecture, _normalised(run)
    heads = a.num_attention_heads + a.num_key_value_heads
    hidden = a.norms_per_layer * ((FLOAT32 + trained) * a.hidden_size + FLOAT32)
    per_head = (FLOAT32 + trained) * (a.query_size + a.key_value_size) + FLOAT32 * heads
    return hidden + (per_head if a.qk_norm else 0)


def _normalised(run: Pass) -> int:
    """Bytes of a normalised element kept for the norm's weight. Gemma multiplies before it leaves float32."""
    if run.lora is not None:
        return 0
    return FLOAT32 if run.architecture.float32_norms else run.activation_bytes


def _linear_inputs(run: Pass) -> int:
    """Inputs kept for weight gradients. The output projection's input, the attention's output, is kept anyway."""
    if run.casts_inputs:
        return run.activation_bytes * sum(linear.in_features for linear in run.adapted)
    trained = run.architecture.linears() if run.lora is None else run.adapted
    shared = {_input_of(linear.name): linear.in_features for linear in trained}
    shared.pop("attention", None)
    return run.activation_bytes * sum(shared.values())


def _input_of(name: str) -> str:
    """Which tensor a linear layer reads: layers that read the same one share it."""
    tensors = {"o_proj": "attention", "down_proj": "product"}
    return tensors.get(name, "mlp" if name in ("gate_proj", "up_proj", "gate_up_proj") else "hidden")


def _lora_middles(run: Pass) -> int:
    return 0 if run.lora is None else run.activation_bytes * run.lora.r * len(run.adapted)


def _cast_weights(run: Pass) -> int:
    """Autocast's copies of the adapter's weights, kept with the activations."""
    if run.lora is None or not run.casts_inputs:
        return 0
    return run.activation_bytes * sum(linear.lora_parameters(run.lora.r) for linear in run.adapted)


def _attention(run: Pass) -> int:
    """Queries, keys and values as the kernel reads them, its output, and a float32 log-sum-exp per head."""
    a, c = run.architecture, run.activation_bytes
    q, k = a.query_size, a.key_value_size
    keys, values = (q, q) if run.repeats_keys else (k, q + 2 * k if a.fused_projections else k)
    return c * (2 * q + keys + values) + FLOAT32 * a.num_attention_heads


def _mlp(run: Pass) -> int:
    """The gate, its activation, and what it is multiplied with."""
    return 3 * run.activation_bytes * run.architecture.intermediate_size


def _score_bytes(run: Pass) -> int:
    """What grows with the square of the length: sdpa keeps its additive mask in each layer, eager its scores."""
    square = run.sequences * run.length**2
    if run.attention == "eager":
        cast = run.activation_bytes if run.activation_bytes != FLOAT32 else 0
        return square * run.architecture.num_attention_heads * (FLOAT32 + cast)
    return square * run.activation_bytes if run.masked else 0


def _score_gradients(run: Pass) -> int:
    """eager differentiates its softmax in float32: the gradients of its output and input, of which one takes the place
    of the scores in the activations' dtype."""
    if run.attention != "eager":
        return 0
    return run.sequences * run.length**2 * run.architecture.num_attention_heads * (FLOAT32 + run.activation_bytes)


def _freed_before_scores(run: Pass) -> int:
    """What a layer kept of its MLP and output projection, less the gradient of the hidden states."""
    after = ("o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
    inputs = sum(linear.in_features for linear in run.adapted if linear.name in after) if run.casts_inputs else 0
    hidden = (FLOAT32 - run.activation_bytes) * run.architecture.hidden_size
    return run.tokens * (_mlp(run) + run.activation_bytes * inputs + hidden)


def _shared_mask(run: Pass) -> int:
    """One boolean mask for all layers."""
    return run.sequences * run.length**2 if run.masked else 0


def _outside(run: Pass) -> int:
    """The last norm."""
    a = run.architecture
    return run.tokens * ((FLOAT32 + _normalised(run)) * a.hidden_size + FLOAT32)


TILE_TOKENS = 4096
"""`TOKEN_CHUNK_SIZE`."""
TILE_VOCABULARY = 32_768
"""`_CHUNKED_LOGPROB_CHUNK_SIZE`: allocated in full, for smaller vocabularies too."""
STATISTICS = 7
"""float32 numbers per token that the tiles are folded into."""
INT64 = 8


def fused_saved_bytes(tokens: int, hidden_size: int, activation_bytes: int) -> int:
    """Kept for the backward pass: the scored tokens' hidden states, their labels, log-normaliser and entropy."""
    return tokens * (hidden_size * activation_bytes + INT64 + 2 * FLOAT32)


def tile_bytes(tokens: int, activation_bytes: int) -> int:
    return min(tokens, TILE_TOKENS) * TILE_VOCABULARY * activation_bytes


def fused_working_bytes(tokens: int, architecture: Architecture, activation_bytes: int, *, trains_head: bool) -> int:
    """Held while the head runs: a tile, and in the backward pass the float32 gradient of the hidden states and, if the
    head is trained, of its weight, each with its copy in the activations' dtype."""
    copies = FLOAT32 + (activation_bytes if activation_bytes != FLOAT32 else 0)
    hidden = tokens * architecture.hidden_size * copies
    weight = architecture.embedding_parameters() * copies if trains_head else 0
    return tile_bytes(tokens, activation_bytes) + tokens * STATISTICS * FLOAT32 + hidden + weight


def full_bytes(tokens: int, vocab_size: int) -> int:
    """A head that is not fused (TRL's `SFTTrainer`, every position): logits, log-softmax and gradient in float32
    (`transformers/loss/loss_utils.py::ForCausalLMLoss`)."""
    return tokens * vocab_size * 3 * FLOAT32


def sampling_bytes(sequences: int, vocab_size: int, activation_bytes: int) -> int:
    """One decoding step of `generate`: logits, their float32 copy, scores and probabilities
    (`transformers/generation/utils.py::_sample`)."""
    return sequences * vocab_size * (activation_bytes + 3 * FLOAT32)


def generation_components(prefill: Pass, completion_tokens: int) -> tuple[Component, ...]:
    """TRL generates all completions of a process at once, `per_device_train_batch_size × steps_per_generation`.

    Args:
        prefill: the prefill of all of them, at the prompt's length.
    """
    architecture, size = prefill.architecture, prefill.activation_bytes
    sequences, length = prefill.sequences, prefill.length + completion_tokens
    per_token = architecture.kv_bytes_per_token(size)
    cache = sequences * length * per_token
    return (
        Component("KV cache", cache, f"{sequences} completions × {length} tokens × {per_token:,} bytes"),
        Component(
            "KV cache growth", _growth(prefill, cache, length), "one layer's cache copied as it grows by a token"
        ),
        Component("prefill", forward_bytes(prefill), "one layer over all prompts, nothing kept"),
        Component(
            "sampling",
            sampling_bytes(sequences, architecture.vocab_size, size),
            f"{sequences} × vocabulary {architecture.vocab_size:,}: logits and three float32 copies",
        ),
    )


def _growth(prefill: Pass, cache: int, length: int) -> int:
    """`DynamicLayer.update` concatenates; attention with a mask repeats keys and values for every query head."""
    a = prefill.architecture
    copied = cache // (2 * a.num_hidden_layers)
    repeated = 2 * prefill.sequences * length * a.query_size * prefill.activation_bytes if prefill.repeats_keys else 0
    return copied + repeated
