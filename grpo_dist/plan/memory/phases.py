"""What the parts of an optimizer step add: generation, output head, backward pass, update."""

from __future__ import annotations

from collections.abc import Iterator

from grpo_dist.plan.memory.activations import Pass, saved_bytes, working_bytes
from grpo_dist.plan.memory.breakdown import Component
from grpo_dist.plan.memory.generation import generation_components
from grpo_dist.plan.memory.logits import full_bytes, fused_saved_bytes, fused_working_bytes
from grpo_dist.plan.memory.optimizer import step_bytes
from grpo_dist.plan.memory.sharding import MAX_LIVE_PARAMETERS
from grpo_dist.plan.memory.states import over
from grpo_dist.plan.memory.trainer_setup import FLOAT32, TrainerSetup


def phases(setup: TrainerSetup) -> Iterator[tuple[str, list[Component]]]:
    """(name, what it adds to what is always there), in the order of a step."""
    if setup.generation_batch:
        prefill = setup.batch(setup.generation_batch, setup.prompt_tokens)
        yield "generate", [_gathered_for_generation(setup), *generation_components(prefill, setup.completion_tokens)]
    run = setup.batch(setup.micro_batch, setup.prompt_tokens + setup.completion_tokens)
    held = [_gradients(setup), _gathered(setup), _activations(setup, run)]
    yield "head", [*held, *_head(setup)]
    yield "backward", [*held, _layer(setup, run), _gradient_shards(setup)]
    yield "update", [_gradients(setup), _step(setup)]


def _gradients(setup: TrainerSetup) -> Component:
    held = setup.sharding.gradients(setup.trainable) * setup.gradient_bytes
    share = over(setup, setup.sharding.shards_gradients)
    return Component("gradients", held, f"{setup.trainable:,} × {setup.gradient_bytes} bytes{share}")


def _activations(setup: TrainerSetup, run: Pass) -> Component:
    kept = "layer inputs kept, the rest recomputed" if setup.gradient_checkpointing else "everything kept"
    return Component(
        "activations",
        saved_bytes(run, checkpointing=setup.gradient_checkpointing),
        f"{run.sequences} × {run.length} tokens, {kept} (Korthikanti et al. 2022, for GQA, gated MLP and LoRA)",
    )


def _layer(setup: TrainerSetup, run: Pass) -> Component:
    parts = (
        "one layer's recomputed activations and gradients" if setup.gradient_checkpointing else "gradients of a layer"
    )
    return Component("layer in work", working_bytes(run, checkpointing=setup.gradient_checkpointing), parts)


def _head(setup: TrainerSetup) -> list[Component]:
    architecture, size = setup.architecture, setup.activation_bytes
    if not setup.fused_head:
        tokens = setup.micro_batch * (setup.prompt_tokens + setup.completion_tokens)
        text = f"{tokens:,} tokens × vocabulary {architecture.vocab_size:,} × 3 in float32"
        return [Component("logits", full_bytes(tokens, architecture.vocab_size), text)]
    tokens = setup.micro_batch * setup.completion_tokens
    saved = fused_saved_bytes(tokens, architecture.hidden_size, size)
    working = fused_working_bytes(tokens, architecture, size, trains_head=setup.lora is None)
    return [
        Component("scored hidden states", saved, f"{tokens:,} completion tokens × hidden size"),
        Component("logits", working, "TRL's fused head: tiles of 4,096 × 32,768, never the whole vocabulary at once"),
    ]


def _step(setup: TrainerSetup) -> Component:
    size = FLOAT32 if setup.sharding.is_deepspeed else setup.trainable_bytes
    stepped = setup.sharding.optimizer(setup.trainable)
    update = step_bytes(setup.optim, stepped, size)
    if setup.sharding.is_deepspeed:
        update += stepped * FLOAT32
    return Component("update in work", update, "optimizer's temporaries; DeepSpeed's float32 gradient partition")


def _gathered(setup: TrainerSetup) -> Component:
    """Whole weights of a sharded model while they are used.

    ZeRO-3 keeps up to `stage3_max_live_parameters`. FSDP2 holds the layer in use, the next one, and the group of
    embedding, last norm and head, which it does not free after the forward pass.
    """
    a, c = setup.architecture, setup.activation_bytes
    if not setup.sharding.shards_weights:
        return Component("gathered weights", 0, "")
    if setup.sharding.kind == "zero3":
        live = min(_all_parameters(setup), max(MAX_LIVE_PARAMETERS, a.embedding_parameters()))
        return Component("gathered weights", live * c, f"ZeRO-3: at most {MAX_LIVE_PARAMETERS:,} live parameters")
    layer = a.layer_parameters() + _adapter_layer(setup)
    elements = 2 * layer + a.embedding_parameters() + a.head_parameters() + a.hidden_size
    return Component("gathered weights", elements * c, "FSDP2: two layers, embedding and head")


def _gathered_for_generation(setup: TrainerSetup) -> Component:
    """The whole model on every process (`ds3_gather_for_generation`, `summon_full_params`)."""
    held = _all_parameters(setup) * setup.activation_bytes if setup.sharding.shards_weights else 0
    return Component("gathered weights", held, "the whole model is gathered to generate")


def _gradient_shards(setup: TrainerSetup) -> Component:
    """Gradients of a layer before they are reduced to shards; FSDP2 has two layers under way."""
    if not setup.sharding.shards_gradients:
        return Component("gradients to reduce", 0, "")
    layer = setup.architecture.layer_parameters() if setup.lora is None else _adapter_layer(setup)
    layers = 2 if setup.sharding.kind == "fsdp2" else 1
    return Component(
        "gradients to reduce", layers * layer * setup.activation_bytes, f"{layers} × one layer's gradients"
    )


def _adapter_layer(setup: TrainerSetup) -> int:
    return 0 if setup.lora is None else setup.trainable // setup.architecture.num_hidden_layers


def _all_parameters(setup: TrainerSetup) -> int:
    return setup.architecture.parameters() + (0 if setup.lora is None else setup.trainable)
