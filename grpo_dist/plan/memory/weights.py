"""Bytes of weights, in a dtype or quantised."""

from __future__ import annotations

from typing import Literal

from grpo_dist.plan.architecture import Architecture, Quantization

Dtype = Literal["float32", "bfloat16", "float16"]

DTYPE_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}

NF4_BLOCK = 64
"""Weights that share one float32 scale in bitsandbytes' 4-bit format (Dettmers et al. 2023, section 3)."""


def weight_bytes(architecture: Architecture, dtype: Dtype, quantization: Quantization | None = None) -> int:
    """All weights of the model on one GPU.

    bitsandbytes quantises the decoder's linear layers; embedding, norms, biases and output head keep the dtype.
    """
    size = DTYPE_BYTES[dtype]
    if quantization is None:
        return architecture.parameters() * size
    linears = architecture.linears()
    layers = architecture.num_hidden_layers
    kept = architecture.parameters() - layers * sum(linear.weights for linear in linears)
    packed = sum(quantized_bytes(linear.out_features, linear.in_features, quantization) for linear in linears)
    return kept * size + layers * packed


def quantized_bytes(rows: int, columns: int, quantization: Quantization) -> int:
    """A (rows, columns) weight with its scales.

    8bit: one byte per weight and a float32 scale per row (Dettmers et al. 2022, LLM.int8, section 3.1).
    4bit: NF4, half a byte per weight and a float32 scale per block of 64, without double quantisation.
    """
    weights = rows * columns
    if quantization == "8bit":
        return weights + 4 * rows
    return -(-weights // 2) + 4 * -(-weights // NF4_BLOCK)
