"""The model, its adapter, and the optional supervised warm start before GRPO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from grpo_dist.config.data import SourceSection
from grpo_dist.config.section import EMBEDDED, Conflict, Name, NonNegative, Positive, Section
from grpo_dist.config.trl_fields import OptimizerName, SchedulerName

RECIPE_TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
"""Transformers' own; beside them it takes kernels of the Hub, `owner/name`."""

OWN_ARGUMENTS = {
    "dtype": "set model.dtype instead",
    "torch_dtype": "set model.dtype instead",
    "attn_implementation": "set model.attn_implementation instead",
    "revision": "set model.revision instead",
    "trust_remote_code": "set model.trust_remote_code instead",
    "device_map": "each process holds the model on its own device; remove it",
}
"""`from_pretrained` arguments that are settings of ours."""


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
    backend: Literal["auto", "unsloth", "trl"] = "auto"
    """What trains it: `unsloth`, `trl` (with PEFT), or `auto`: Unsloth for one process on a GPU if it is installed."""

    def conflicts(self) -> Iterator[Conflict]:
        if self.name_or_path == EMBEDDED and self.revision is not None:
            yield ("revision",), "the embedded model is made from grpo.seed and has no revisions; remove it"
        attention = self.attn_implementation
        if attention is not None and not self.trust_remote_code and not _is_attention(attention):
            known = f"one of Transformers' {', '.join(ATTENTION)}, or a kernel of the Hub (owner/name)"
            yield ("attn_implementation",), f"must be {known}, not {attention!r}"
        for name in self.model_init_kwargs:
            if name in OWN_ARGUMENTS:
                yield ("model_init_kwargs", name), OWN_ARGUMENTS[name]


def _is_attention(name: str) -> bool:
    return "/" in name or name.removeprefix("paged|") in ATTENTION


class LoraSection(Section):
    """Low-rank adapter (PEFT's `LoraConfig` spellings)."""

    r: Positive = 32
    """Rank."""
    lora_alpha: Positive = 64
    """Scale; the update is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. GRPO scores in train mode: anything but 0 distorts its ratios."""
    target_modules: Literal["all-linear"] | Annotated[tuple[Name, ...], Field(min_length=1)] = RECIPE_TARGET_MODULES
    """Names of the adapted linear layers, or `all-linear`."""
    use_rslora: bool = False
    """Rank-stabilised scaling, lora_alpha / sqrt(r)."""

    def conflicts(self) -> Iterator[Conflict]:
        if "lm_head" in self.target_modules:
            yield ("target_modules",), "TRL trains no adapter on lm_head; remove it from the list"


class WarmStartSection(Section):
    """Supervised fine-tuning of the adapter on a few well-formed answers, before GRPO (TRL's `SFTConfig` spellings)."""

    data: SourceSection
    """Where the examples come from. Columns: `prompt` and `completion`, or `prompt`, `reasoning` and `answer`."""
    numeric_answers: bool = False
    """Leave out examples whose answer is not a plain number, as the recipe does; needs the column `answer`."""
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
    lr_scheduler_type: SchedulerName = "linear"
    """Transformers' scheduler name."""
    optim: OptimizerName = "adamw_torch"
    """Transformers' optimizer name."""
    per_device_train_batch_size: Positive = 1
    """Examples per optimizer step."""
    max_length: Positive = 1024
    """Examples of more tokens are left out, none is cut; prompt, completion and end token count."""
