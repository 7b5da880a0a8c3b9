"""What decides the memory of a training process."""

from __future__ import annotations

from dataclasses import dataclass

from grpo_dist.errors import PlanError
from grpo_dist.plan.architecture import Architecture
from grpo_dist.plan.memory.activations import AttentionName, Pass
from grpo_dist.plan.memory.lora import Lora
from grpo_dist.plan.memory.sharding import ONE_PROCESS, Sharding
from grpo_dist.plan.memory.weights import DTYPE_BYTES, Dtype, Quantization

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
    """As `GRPOTrainer` scores completions; False: all logits at once, as `SFTTrainer` does in the warm start."""
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
        """Parameters that get gradients, over the whole model."""
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
