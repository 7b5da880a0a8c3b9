"""The output head, in bytes; and generation by Transformers inside a training process.

TRL ≥ 1.15 never holds the logits of a batch: `trl/kernels/chunked_logprob.py` projects tiles of 4,096 tokens × 32,768
vocabulary entries, folds each into running sums, and projects them again for the backward pass. Only completion tokens
are scored.
"""

from __future__ import annotations

from grpo_dist.plan.memory.activations import Pass, forward_bytes
from grpo_dist.plan.memory.breakdown import Component
from grpo_dist.plan.specs import Architecture

TILE_TOKENS = 4096
"""`TOKEN_CHUNK_SIZE`."""
TILE_VOCABULARY = 32_768
"""`_CHUNKED_LOGPROB_CHUNK_SIZE`: allocated in full, for smaller vocabularies too."""
STATISTICS = 7
"""float32 numbers per token that the tiles are folded into."""
FLOAT32 = 4
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
