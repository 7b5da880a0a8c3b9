"""The memory of one training process on its GPU.

What it always holds (weights, adapter, float32 copies, optimizer states, buckets), and what the parts of an optimizer
step add (generation, output head, backward pass, update).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from grpo_dist.errors import PlanError
from grpo_dist.plan.memory.activations import (
    AttentionName,
    Lora,
    Pass,
    full_bytes,
    fused_saved_bytes,
    fused_working_bytes,
    generation_components,
    saved_bytes,
    working_bytes,
)
from grpo_dist.plan.memory.breakdown import (
    DTYPE_BYTES,
    Component,
    Dtype,
    MemoryBreakdown,
    Phase,
    process_overhead,
    weight_bytes,
    with_margin,
    without_zeros,
)
from grpo_dist.plan.memory.optimizer import (
    MAX_LIVE_PARAMETERS,
    ONE_PROCESS,
    Sharding,
    TensorShapes,
    optimizer_bytes,
    optimizer_states,
    step_bytes,
)
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.architecture import Quantization

FLOAT32 = 4


@dataclass(frozen=True)
class TrainerSetup:
    """What decides a training process's memory. Lengths are the longest a batch can be padded to."""

    architecture: Architecture
    micro_batch: int
    """`per_device_train_batch_size`: completions in one forward and backward pass."""
    prompt_tokens: int
    completion_tokens: int
    dtype: Dtype = "bfloat16"
    quantization: Quantization | None = None
    lora: Lora | None = None
    """None: every parameter is trained."""
    optim: str = "adamw_torch"
    """Transformers' optimizer name."""
    sharding: Sharding = ONE_PROCESS
    gradient_checkpointing: bool = True
    attention: AttentionName = "sdpa"
    reference_model: bool = False
    """A second copy of the weights for the KL term; with LoRA the model without its adapter serves."""
    fused_head: bool = True
    """As `GRPOTrainer` scores completions; False: all logits at once, as in `SFTTrainer` for the warm start."""
    generation_batch: int = 0
    """Completions this process generates at once with Transformers; 0 when vLLM generates."""

    def __post_init__(self) -> None:
        if self.micro_batch < 1 or self.prompt_tokens < 1 or self.completion_tokens < 1:
            raise PlanError(
                f"a micro-batch of {self.micro_batch} × ({self.prompt_tokens} + {self.completion_tokens}) tokens "
                f"holds nothing to train on",
                hint="batch and lengths are at least 1",
            )
        if self.quantization is not None and (self.lora is None or self.sharding.shards_weights):
            raise PlanError(
                f"{self.quantization} weights are trained with LoRA and under ddp, zero1 or zero2 only",
                hint="leave the weights in bfloat16",
            )

    @property
    def activation_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]

    @property
    def trainable(self) -> int:
        """Trainable parameters of the whole model."""
        return self.architecture.parameters() if self.lora is None else self.lora.parameters(self.architecture)

    @property
    def trainable_bytes(self) -> int:
        """Bytes per trainable parameter, as the model holds it.

        LoRA: PEFT makes the adapter float32; TRL keeps bfloat16 on quantised weights and the model's dtype under
        ZeRO-3 (`grpo_trainer.py`), and DeepSpeed casts it to the model's dtype (`engine.py`).
        FSDP2: Accelerate makes every trainable parameter float32 (`fsdp2_prepare_model`).
        """
        if self.sharding.kind == "fsdp2":
            return FLOAT32
        if self.sharding.is_deepspeed or self.lora is None:
            return self.activation_bytes
        return 2 if self.quantization else FLOAT32

    @property
    def gradient_bytes(self) -> int:
        """Bytes per gradient: the parameter's dtype; DeepSpeed accumulates in the model's (`get_data_types`)."""
        return self.trainable_bytes

    @property
    def casts_inputs(self) -> bool:
        """FSDP2 gathers the adapter in the activations' dtype, so there nothing is cast."""
        if self.lora is None or self.sharding.kind == "fsdp2":
            return False
        return self.trainable_bytes != self.activation_bytes

    def batch(self, sequences: int, length: int) -> Pass:
        return Pass(
            architecture=self.architecture,
            sequences=sequences,
            length=length,
            activation_bytes=self.activation_bytes,
            lora=self.lora,
            casts_inputs=self.casts_inputs,
            attention=self.attention,
        )


def resident(setup: TrainerSetup) -> Iterator[Component]:
    """What is held from the first step to the last."""
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
    """` / N` behind a number that N processes share; by default as for the optimizer states."""
    shared = setup.sharding.shards_optimizer if shared is None else shared
    return f" / {setup.sharding.num_processes}" if shared and setup.sharding.num_processes > 1 else ""


def phases(setup: TrainerSetup) -> Iterator[tuple[str, list[Component]]]:
    """(name, what it adds to what is always held), in the order of a step."""
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
    """Gradients of a layer before they are reduced to shards; FSDP2 has two layers in flight."""
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


def answering_memory(setup: TrainerSetup, sequences: int) -> MemoryBreakdown:
    """A process of the comparison: the model with its adapter, and `completions` generated at once."""
    names = ("weights", "adapter")
    held = without_zeros(component for component in resident(setup) if component.name in names)
    prefill = setup.batch(sequences, setup.prompt_tokens)
    parts = (Phase("generate", without_zeros(generation_components(prefill, setup.completion_tokens))),)
    return MemoryBreakdown("comparison", held + process_overhead(1), with_margin(held, parts))


def trainer_memory(setup: TrainerSetup) -> MemoryBreakdown:
    """What the process always holds, and the phases of an optimizer step: generate, head, backward, update.

    Gradients are counted in every phase after generation: with gradient accumulation those of earlier micro-batches
    are there when a new one begins.
    """
    held = without_zeros(resident(setup))
    parts = tuple(Phase(name, without_zeros(components)) for name, components in phases(setup))
    overhead = process_overhead(setup.sharding.num_processes)
    return MemoryBreakdown("trainer", held + overhead, with_margin(held, parts))
