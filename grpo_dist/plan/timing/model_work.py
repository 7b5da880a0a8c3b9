"""What one token costs a dense decoder, in parameters, FLOPs and bytes."""

from __future__ import annotations

from grpo_dist.plan.architecture import Architecture
from grpo_dist.plan.hardware import Gpu


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
