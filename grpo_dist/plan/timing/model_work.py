"""What one token costs a decoder-only transformer, in parameters, FLOPs and bytes.

Dense models with grouped-query attention and a gated MLP (q, k, v, o, gate, up, down), as Llama, Mistral and Qwen are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_dist.plan.architecture import Architecture

BYTES = 2
"""Per weight, activation and KV entry: 16 bit."""


def layer_parameters(architecture: Architecture) -> int:
    """Weights of one layer's seven matrices; norms and biases are below a thousandth of them."""
    hidden, heads = architecture.hidden_size, architecture.head_dim
    attention = 2 * hidden * heads * (architecture.num_attention_heads + architecture.num_key_value_heads)
    return attention + 3 * hidden * architecture.intermediate_size


def matmul_parameters(architecture: Architecture) -> int:
    """Weights a token is multiplied with: all layers and the output head, tied or not."""
    return architecture.num_hidden_layers * layer_parameters(architecture) + head_parameters(architecture)


def head_parameters(architecture: Architecture) -> int:
    return architecture.hidden_size * architecture.vocab_size


def weight_bytes(architecture: Architecture) -> int:
    """Bytes a decode step reads: every matrix once. The embedding table is only looked up."""
    return BYTES * matmul_parameters(architecture)


def kv_bytes(architecture: Architecture) -> int:
    """Bytes of keys and values per token, all layers, 16 bit."""
    return 2 * BYTES * architecture.num_hidden_layers * architecture.num_key_value_heads * architecture.head_dim


def attention_flops(architecture: Architecture, context: float) -> float:
    """FLOPs per token and layer of QKᵀ and of the weighted sum over `context` positions: 2 × 2 × context × width."""
    return 4.0 * context * architecture.num_attention_heads * architecture.head_dim
