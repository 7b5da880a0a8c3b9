"""One dense decoder-only transformer: its numbers, its linear layers, its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from grpo_dist.plan.refusal import Refused, Way

Quantization = Literal["8bit", "4bit"]
"""By bitsandbytes."""

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

    Fields are named as in `config.json`; the rest says what the model class adds to it.
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
    """Of weights that are stored quantised."""

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
        """Every linear layer of the decoder under its whole name in Transformers' causal language models."""
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
        """Of the output head; none when it shares the embedding's weight."""
        return 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size

    def attention_parameters(self) -> int:
        """Of one layer, without its norms."""
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
            raise Refused(
                f"lora.target_modules: a {self.model_type} layer has no linear layer named {', '.join(missing)}; "
                f"it has {', '.join(names)}",
                (Way({"lora.target_modules": ALL_LINEAR}, "adapts all of them"),),
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
        """Keys and values a cache holds per token. Layers with a sliding window are counted as if it had no end."""
        return 2 * self.num_hidden_layers * self.key_value_size

    def kv_bytes_per_token(self, dtype_bytes: int = 2) -> int:
        """147,456 for Qwen3-4B with 2 bytes."""
        return self.kv_elements_per_token() * dtype_bytes


def _names(target_modules: str | tuple[str, ...]) -> tuple[str, ...]:
    return (target_modules,) if isinstance(target_modules, str) else target_modules
