"""One dense decoder-only transformer, read from `config.json`: its numbers, linear layers and parameters.

Source of the defaults: the configuration classes of Transformers 5.17 (`models/*/configuration_*.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from grpo_dist.errors import PlanError
from grpo_dist.plan.batch import Alternative, PlanRefusal

Quantization = Literal["8bit", "4bit"]
"""Quantisation by bitsandbytes."""

ALL_LINEAR = "all-linear"
"""PEFT's name for every linear layer but the output head."""


@dataclass(frozen=True)
class Linear:
    """A linear layer that occurs once in each decoder layer; `name` is the module's last name, as LoRA targets it."""

    name: str
    in_features: int
    out_features: int
    bias: bool = False

    @property
    def weights(self) -> int:
        return self.in_features * self.out_features

    def parameters(self) -> int:
        return self.weights + (self.out_features if self.bias else 0)

    def lora_parameters(self, r: int) -> int:
        """A is (r, in_features), B is (out_features, r): Hu et al. 2021, section 4.1."""
        return r * (self.in_features + self.out_features)


@dataclass(frozen=True)
class Architecture:
    """A decoder of `num_hidden_layers` equal layers: attention with grouped keys, gated MLP, RMS norms.

    Fields are named as in `config.json`; the rest is what the model class adds.
    """

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    qk_norm: bool = False
    """Queries and keys are normalised per head (Qwen3, Gemma 3)."""
    attention_bias: bool = False
    """The query, key and value projections have a bias."""
    output_bias: bool = False
    """The attention output projection has a bias."""
    mlp_bias: bool = False
    fused_projections: bool = False
    """One `qkv_proj` and one `gate_up_proj` instead of three and two (Phi-3)."""
    norms_per_layer: int = 2
    """RMS norms over the hidden size in a layer; four in Gemma 2 and 3."""
    float32_norms: bool = False
    """The norm's weight is applied in float32 (Gemma)."""
    quantization: Quantization | None = None
    """Quantisation of weights that are stored quantised."""

    @property
    def query_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of the keys, and of the values."""
        return self.num_key_value_heads * self.head_dim

    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one decoder layer, in the order they run."""
        return (*self._attention_linears(), *self._mlp_linears())

    def modules(self) -> Iterator[tuple[str, Linear]]:
        """Every linear layer of the decoder under its full name in Transformers' causal language models."""
        parts = (("self_attn", self._attention_linears()), ("mlp", self._mlp_linears()))
        for layer in range(self.num_hidden_layers):
            for part, linears in parts:
                for linear in linears:
                    yield f"model.layers.{layer}.{part}.{linear.name}", linear

    def _attention_linears(self) -> tuple[Linear, ...]:
        h, q, kv = self.hidden_size, self.query_size, self.key_value_size
        output = Linear("o_proj", q, h, self.output_bias)
        if self.fused_projections:
            return Linear("qkv_proj", h, q + 2 * kv, self.attention_bias), output
        return (
            Linear("q_proj", h, q, self.attention_bias),
            Linear("k_proj", h, kv, self.attention_bias),
            Linear("v_proj", h, kv, self.attention_bias),
            output,
        )

    def _mlp_linears(self) -> tuple[Linear, ...]:
        h, i = self.hidden_size, self.intermediate_size
        down = Linear("down_proj", i, h, self.mlp_bias)
        if self.fused_projections:
            return Linear("gate_up_proj", h, 2 * i, self.mlp_bias), down
        return Linear("gate_proj", h, i, self.mlp_bias), Linear("up_proj", h, i, self.mlp_bias), down

    def embedding_parameters(self) -> int:
        return self.vocab_size * self.hidden_size

    def head_parameters(self) -> int:
        """Parameters of the output head; 0 if it shares the embedding's weight."""
        return 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size

    def attention_parameters(self) -> int:
        """Parameters of one layer, without its norms."""
        return sum(linear.parameters() for linear in self._attention_linears())

    def mlp_parameters(self) -> int:
        """Of one layer."""
        return sum(linear.parameters() for linear in self._mlp_linears())

    def norm_parameters(self) -> int:
        """Of one layer: each norm has a weight and no bias."""
        return self.norms_per_layer * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)

    def layer_parameters(self) -> int:
        return self.attention_parameters() + self.mlp_parameters() + self.norm_parameters()

    def parameters(self) -> int:
        """All of them; a shared weight counts once."""
        layers = self.num_hidden_layers * self.layer_parameters()
        return self.embedding_parameters() + layers + self.hidden_size + self.head_parameters()

    def tensors(self) -> tuple[tuple[tuple[int, ...], int], ...]:
        """(shape, how many) of every parameter tensor: what an optimizer sees in full fine-tuning."""
        layers, h = self.num_hidden_layers, self.hidden_size
        matrices = [((linear.out_features, linear.in_features), layers) for linear in self.linears()]
        biases = [((linear.out_features,), layers) for linear in self.linears() if linear.bias]
        qk_norms = [((self.head_dim,), 2 * layers)] if self.qk_norm else []
        tables = [((self.vocab_size, h), 1 if self.tie_word_embeddings else 2)]
        return (*tables, *matrices, *biases, *qk_norms, ((h,), layers * self.norms_per_layer + 1))

    def targeted(self, target_modules: str | tuple[str, ...]) -> tuple[Linear, ...]:
        """The linear layers of one decoder layer that an adapter with these targets is put on.

        Raises:
            PlanError: a name fits no linear layer of a decoder layer.
        """
        linears = self.linears()
        if target_modules == ALL_LINEAR:
            return linears
        wanted = {name.rpartition(".")[2] for name in _names(target_modules)}
        names = [linear.name for linear in linears]
        missing = sorted(wanted - set(names))
        if missing:
            raise PlanRefusal(
                f"lora.target_modules: a {self.model_type} layer has no linear layer named {', '.join(missing)}; "
                f"it has {', '.join(names)}",
                (Alternative({"lora.target_modules": ALL_LINEAR}, "adapts all of them"),),
            )
        return tuple(linear for linear in linears if linear.name in wanted)

    def lora_parameters(self, r: int, target_modules: str | tuple[str, ...]) -> int:
        """Trainable parameters of an adapter of rank r on the targets in every layer.

        Raises:
            PlanError: see `targeted`.
        """
        per_layer = sum(linear.lora_parameters(r) for linear in self.targeted(target_modules))
        return self.num_hidden_layers * per_layer

    def lora_tensors(self, r: int, target_modules: str | tuple[str, ...]) -> tuple[tuple[tuple[int, ...], int], ...]:
        """(shape, how many) of the adapter's tensors."""
        layers = self.num_hidden_layers
        return tuple(
            (shape, layers)
            for linear in self.targeted(target_modules)
            for shape in ((r, linear.in_features), (linear.out_features, r))
        )

    def kv_elements_per_token(self) -> int:
        """Keys and values a cache holds per token. Layers with a sliding window are counted as if it were unlimited."""
        return 2 * self.num_hidden_layers * self.key_value_size

    def kv_bytes_per_token(self, dtype_bytes: int = 2) -> int:
        """147,456 for Qwen3-4B with 2 bytes."""
        return self.kv_elements_per_token() * dtype_bytes


def _names(target_modules: str | tuple[str, ...]) -> tuple[str, ...]:
    return (target_modules,) if isinstance(target_modules, str) else target_modules


@dataclass(frozen=True)
class Family:
    """What a model class adds to its `config.json`, and its defaults for what the file lacks."""

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
        PlanError: the family is unknown, is a mixture of experts, a number is missing or impossible, or the
            weights are quantised by something other than bitsandbytes.
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
    """The quantisation that a `BitsAndBytesConfig`, as Transformers writes or reads it, gives the weights."""
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
