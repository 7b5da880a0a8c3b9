"""Models known by name, so that planning needs neither their files nor a network."""

from __future__ import annotations

from grpo_dist.plan.architecture.model import Architecture

EMBEDDED = Architecture(
    model_type="qwen3",
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=32,
    vocab_size=107,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
    qk_norm=True,
)
"""The tiny model that comes with the package."""


def _qwen3(hidden: int, mlp: int, layers: int, heads: int, *, tied: bool, positions: int) -> Architecture:
    """Qwen3 Technical Report (2025), table 1, and the models' `config.json`."""
    return Architecture(
        model_type="qwen3",
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        qk_norm=True,
    )


_CHAT, _BASE = 40_960, 32_768

KNOWN: dict[str, Architecture] = {
    "Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, tied=True, positions=_CHAT),
    "Qwen3-0.6B-Base": _qwen3(1024, 3072, 28, 16, tied=True, positions=_BASE),
    "Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, tied=True, positions=_CHAT),
    "Qwen3-1.7B-Base": _qwen3(2048, 6144, 28, 16, tied=True, positions=_BASE),
    "Qwen3-4B": _qwen3(2560, 9728, 36, 32, tied=True, positions=_CHAT),
    "Qwen3-4B-Base": _qwen3(2560, 9728, 36, 32, tied=True, positions=_BASE),
    "Qwen3-8B": _qwen3(4096, 12_288, 36, 32, tied=False, positions=_CHAT),
    "Qwen3-8B-Base": _qwen3(4096, 12_288, 36, 32, tied=False, positions=_BASE),
    "Qwen3-14B": _qwen3(5120, 17_408, 40, 40, tied=False, positions=_CHAT),
    "Qwen3-14B-Base": _qwen3(5120, 17_408, 40, 40, tied=False, positions=_BASE),
    "Qwen3-32B": _qwen3(5120, 25_600, 64, 64, tied=False, positions=_CHAT),
}
"""Name on the Hub, without its owner → architecture."""

OWNERS = ("Qwen", "unsloth")
"""Who publishes them under these names."""
