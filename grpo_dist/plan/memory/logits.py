"""The output head, in bytes.

TRL ≥ 1.15 never holds the logits of a batch: `trl/kernels/chunked_logprob.py` projects tiles of 4,096 tokens ×
32,768 vocabulary entries, folds each into running sums, and projects them again for the backward pass. Only completion
tokens are scored.
"""

from __future__ import annotations

from grpo_dist.plan.architecture import Architecture

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
    """Held while the head runs: a tile, and in the backward pass the float32 gradient of the hidden states and, when
    the head is trained, of its weight, each with its copy in the activations' dtype."""
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
