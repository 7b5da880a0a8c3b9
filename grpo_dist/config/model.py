"""The model, its adapter, and the optional supervised warm start before GRPO."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from grpo_dist.config.data import SourceSection
from grpo_dist.config.section import Name, NonNegative, Positive, Section

RECIPE_TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class ModelSection(Section):
    """Which causal language model is trained, and how it is loaded."""

    name_or_path: Name
    """Hugging Face model id, local directory, or `embedded` for the tiny model that is made from the seed."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; `main` when not given."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the frozen base weights and of the arithmetic. LoRA weights are kept in float32."""
    attn_implementation: str | None = None
    """Transformers' attention, e.g. `sdpa` or `flash_attention_2`; Transformers' own choice when not given."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model repository. Off unless you have read that code."""
    max_length: Positive | None = None
    """Room for prompt plus completion, in tokens; the model's `max_position_embeddings` when not given."""
    model_init_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `from_pretrained`, passed as they are."""


class LoraSection(Section):
    """Low-rank adapter (PEFT's `LoraConfig` spellings)."""

    r: Positive = 32
    """Rank."""
    lora_alpha: Positive = 64
    """Scale; the update is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. GRPO scores in train mode: anything but 0 distorts its ratios."""
    target_modules: Literal["all-linear"] | tuple[Name, ...] = RECIPE_TARGET_MODULES
    """Names of the adapted linear layers, or `all-linear`."""
    use_rslora: bool = False
    """Rank-stabilised scaling, lora_alpha / sqrt(r)."""


class WarmStartSection(Section):
    """Supervised fine-tuning of the adapter on a few well-formed answers, before GRPO (TRL's `SFTConfig` spellings)."""

    data: SourceSection
    """Where the examples come from. Columns: `prompt` and `completion`, or `prompt`, `reasoning` and `answer`."""
    num_train_epochs: float = Field(default=2.0, gt=0)
    """Passes over the examples."""
    max_steps: int = Field(default=-1, ge=-1)
    """Optimizer steps; overrides num_train_epochs when positive."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    warmup_steps: NonNegative = 5
    """Optimizer steps of linear warm-up."""
    weight_decay: float = Field(default=0.001, ge=0)
    """AdamW weight decay."""
    lr_scheduler_type: str = "linear"
    """Transformers' scheduler name."""
    optim: str = "adamw_torch"
    """Transformers' optimizer name."""
    per_device_train_batch_size: Positive = 1
    """Examples per optimizer step."""
    max_length: Positive = 1024
    """Examples longer than this many tokens are left out."""
