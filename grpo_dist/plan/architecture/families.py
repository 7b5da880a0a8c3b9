"""`config.json` → `Architecture`, family by family.

Source of the defaults: the configuration classes of Transformers 5.17 (`models/*/configuration_*.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpo_dist.errors import PlanError
from grpo_dist.plan.architecture.model import Architecture, Quantization


@dataclass(frozen=True)
class Family:
    """What a model class adds to its `config.json`, and what it assumes where the file is silent."""

    head_dim: int | None = None
    """`hidden_size / num_attention_heads` when None."""
    tie_word_embeddings: bool = False
    qk_norm: bool = False
    attention_bias: bool | None = None
    """Of query, key and value; None: as the file says under `attention_bias`."""
    output_bias: bool | None = None
    """None: as the file says under `attention_bias`."""
    reads_mlp_bias: bool = False
    fused_projections: bool = False
    norms_per_layer: int = 2
    float32_norms: bool = False


FAMILIES: dict[str, Family] = {
    "qwen3": Family(head_dim=128, qk_norm=True),
    "qwen2": Family(attention_bias=True, output_bias=False),
    "llama": Family(reads_mlp_bias=True),
    "mistral": Family(attention_bias=False, output_bias=False),
    "gemma": Family(head_dim=256, tie_word_embeddings=True, float32_norms=True),
    "gemma2": Family(head_dim=256, tie_word_embeddings=True, float32_norms=True, norms_per_layer=4),
    "gemma3_text": Family(head_dim=256, tie_word_embeddings=True, float32_norms=True, norms_per_layer=4, qk_norm=True),
    "phi3": Family(attention_bias=False, output_bias=False, fused_projections=True),
}
"""`model_type` → its family. Qwen2.5 is `qwen2`, Phi-4 is `phi3`, Llama 2, Llama 3 and SmolLM2 are `llama`."""

EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)


def from_config(config: Mapping[str, Any], where: str) -> Architecture:
    """Read the content of a `config.json`.

    Args:
        where: the model or file it came from, for the error.

    Raises:
        PlanError: the family is not known here, is a mixture of experts, a number is missing or impossible, or the
            weights are quantised by something else than bitsandbytes.
    """
    family = _family(config, where)
    sizes = {name: _size(config, name, where) for name in SIZES}
    heads = sizes["num_attention_heads"]
    given = bool(config.get("attention_bias", False))
    return Architecture(
        model_type=config["model_type"],
        **sizes,
        num_key_value_heads=_size(config, "num_key_value_heads", where, default=heads),
        head_dim=_size(config, "head_dim", where, default=family.head_dim or sizes["hidden_size"] // heads),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", family.tie_word_embeddings)),
        qk_norm=family.qk_norm,
        attention_bias=given if family.attention_bias is None else family.attention_bias,
        output_bias=given if family.output_bias is None else family.output_bias,
        mlp_bias=family.reads_mlp_bias and bool(config.get("mlp_bias", False)),
        fused_projections=family.fused_projections,
        norms_per_layer=family.norms_per_layer,
        float32_norms=family.float32_norms,
        quantization=_stored(config.get("quantization_config"), where),
    )


def bitsandbytes(stated: Any) -> Quantization | None:
    """What a `BitsAndBytesConfig`, as Transformers writes it or takes it, makes of the weights."""
    if not isinstance(stated, Mapping):
        return None
    if stated.get("load_in_4bit"):
        return "4bit"
    return "8bit" if stated.get("load_in_8bit") else None


def _stored(stated: Any, where: str) -> Quantization | None:
    found = bitsandbytes(stated)
    if stated and found is None:
        method = stated.get("quant_method") if isinstance(stated, Mapping) else stated
        raise PlanError(
            f"model.name_or_path: the weights of {where} are quantised ({method}), which is not planned here",
            hint="choose weights of 16 bits, or ones that bitsandbytes quantised",
        )
    return found


def _family(config: Mapping[str, Any], where: str) -> Family:
    model_type = config.get("model_type")
    if any(config.get(key) for key in EXPERT_KEYS):
        raise PlanError(
            f"model.name_or_path: {where} is a mixture of experts (model_type {model_type}), which is not planned here",
            hint=f"choose a dense model: {', '.join(FAMILIES)}",
        )
    if model_type not in FAMILIES:
        known = "text model " if "text_config" in config else ""
        raise PlanError(
            f"model.name_or_path: {where} has model_type {model_type!r}, whose memory is not known here",
            hint=f"choose a {known}with one of the model types {', '.join(FAMILIES)}",
        )
    return FAMILIES[model_type]


def _size(config: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PlanError(
            f"model.name_or_path: the config.json of {where} says {name}: {value!r}, where a whole number ≥ 1 belongs",
            hint="give the directory of a model that Transformers can load",
        )
    return value
