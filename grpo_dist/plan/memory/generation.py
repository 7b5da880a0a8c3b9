"""Generation by Transformers inside a training process, in bytes."""

from __future__ import annotations

from grpo_dist.plan.memory.activations import Pass, forward_bytes
from grpo_dist.plan.memory.breakdown import Component
from grpo_dist.plan.memory.logits import sampling_bytes


def generation_components(prefill: Pass, completion_tokens: int) -> tuple[Component, ...]:
    """TRL generates all completions of a process at once, `per_device_train_batch_size × steps_per_generation`.

    Args:
        prefill: all of them, with the prompt's length.
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
