"""What a training process always holds: weights, adapter, float32 copies, optimizer states, buckets."""

from __future__ import annotations

from collections.abc import Iterator

from grpo_dist.plan.memory.breakdown import Component
from grpo_dist.plan.memory.optimizer import TensorShapes, optimizer_bytes, optimizer_states
from grpo_dist.plan.memory.sharding import ONE_PROCESS
from grpo_dist.plan.memory.trainer_setup import FLOAT32, TrainerSetup
from grpo_dist.plan.memory.weights import weight_bytes


def resident(setup: TrainerSetup) -> Iterator[Component]:
    """All that stays from the first step to the last."""
    yield _weights(setup)
    yield from _adapter(setup)
    yield _master(setup)
    yield _optimizer(setup)
    yield _reference(setup)
    yield _buckets(setup)


def _weights(setup: TrainerSetup) -> Component:
    whole = weight_bytes(setup.architecture, setup.dtype, setup.quantization)
    size = setup.trainable_bytes if setup.lora is None else setup.activation_bytes
    parameters = setup.architecture.parameters()
    kind = setup.quantization or setup.dtype
    if not setup.sharding.shards_weights:
        return Component("weights", whole, f"{parameters:,} parameters in {kind}")
    held = setup.sharding.share(parameters) * size
    return Component("weights", held, f"{parameters:,} parameters × {size} bytes / {setup.sharding.num_processes}")


def _adapter(setup: TrainerSetup) -> Iterator[Component]:
    if setup.lora is None:
        return
    held = setup.sharding.weights(setup.trainable)
    text = f"{setup.trainable:,} parameters × {setup.trainable_bytes} bytes{over(setup, setup.sharding.shards_weights)}"
    yield Component("adapter", held * setup.trainable_bytes, text)


def _master(setup: TrainerSetup) -> Component:
    """DeepSpeed steps a float32 copy of its partition (`single_partition_of_fp32_groups`)."""
    held = setup.sharding.optimizer(setup.trainable) * FLOAT32 if setup.sharding.is_deepspeed else 0
    return Component("master weights", held, f"{setup.trainable:,} × 4 bytes{over(setup)}")


def _optimizer(setup: TrainerSetup) -> Component:
    size = FLOAT32 if setup.sharding.is_deepspeed else setup.trainable_bytes
    held = optimizer_bytes(setup.optim, _stepped_tensors(setup), size)
    return Component("optimizer states", held, f"{setup.optim}: {optimizer_states(setup.optim).source}{over(setup)}")


def _stepped_tensors(setup: TrainerSetup) -> TensorShapes:
    """DeepSpeed steps one flat partition; FSDP2 shards the first dimension; DDP steps everything."""
    lora, sharding = setup.lora, setup.sharding
    if sharding.is_deepspeed:
        return (((sharding.share(setup.trainable),), 1),)
    architecture = setup.architecture
    tensors = architecture.tensors() if lora is None else architecture.lora_tensors(lora.r, lora.target_modules)
    if sharding.kind == "ddp":
        return tensors
    return tuple(((sharding.share(shape[0]), *shape[1:]), count) for shape, count in tensors)


def _reference(setup: TrainerSetup) -> Component:
    parameters = setup.architecture.parameters()
    wanted = setup.reference_model and setup.lora is None
    held = setup.sharding.weights(parameters) * setup.activation_bytes if wanted else 0
    return Component("reference model", held, f"{parameters:,} parameters in {setup.dtype}, no gradients")


def _buckets(setup: TrainerSetup) -> Component:
    """DDP: a copy of all gradients (`gradient_as_bucket_view=False`, Accelerate's default).
    DeepSpeed: one reduce bucket of hidden² elements (Transformers' value for `auto`)."""
    sharding = setup.sharding
    if sharding.kind == "fsdp2" or sharding == ONE_PROCESS:
        return Component("gradient buckets", 0, "")
    if sharding.kind == "ddp":
        copied = setup.trainable * setup.gradient_bytes
        return Component("gradient buckets", copied, "DDP reducer: a copy of all gradients")
    bucket = setup.architecture.hidden_size**2 * setup.gradient_bytes
    return Component("gradient buckets", bucket, "DeepSpeed reduce_bucket_size: hidden² elements")


def over(setup: TrainerSetup, shared: bool | None = None) -> str:
    """` / N` behind a number that N processes share; like the optimizer states when nothing is said."""
    shared = setup.sharding.shards_optimizer if shared is None else shared
    return f" / {setup.sharding.num_processes}" if shared and setup.sharding.num_processes > 1 else ""
