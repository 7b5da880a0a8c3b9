"""The algorithm: quantities of a whole step, and every other field of TRL's `GRPOConfig`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from grpo_dist.config.section import NonNegative, Positive, Section

LossType = Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]


class GrpoSection(Section):
    """TRL's `GRPOConfig`, stated globally.

    The fields below have a default or a check of ours. Any other `GRPOConfig` field may be given
    too and is passed on unchanged, except those the planner derives.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    prompts_per_step: Positive = 8
    """Different prompts per optimizer step, over all processes."""
    num_generations: int = Field(default=8, ge=2)
    """Completions per prompt: the group whose rewards are compared."""
    max_completion_length: Positive = 512
    """Longest completion, in tokens."""
    max_steps: int = Field(default=-1, ge=-1)
    """Optimizer steps; overrides num_train_epochs when positive."""
    num_train_epochs: float = Field(default=1.0, gt=0)
    """Passes over the training problems."""
    learning_rate: float = Field(default=5e-6, ge=0)
    """Peak learning rate."""
    lr_scheduler_type: str = "linear"
    """Transformers' scheduler name."""
    warmup_steps: float = Field(default=0.1, ge=0)
    """Optimizer steps of warm-up; below 1 a fraction of all steps."""
    weight_decay: float = Field(default=0.001, ge=0)
    """AdamW weight decay."""
    optim: str = "adamw_torch"
    """Transformers' optimizer name."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradient clipping by norm; 0 is off."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; below 1 it biases TRL's importance-sampling correction."""
    top_k: NonNegative = 0
    """Sample from the k most likely tokens; 0 is off."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Drop tokens less likely than min_p times the likeliest."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL penalty against the reference model."""
    num_iterations: Positive = 1
    """Optimizer passes over each generated batch."""
    epsilon: float = Field(default=0.2, gt=0)
    """Clipping range of the policy ratio."""
    loss_type: LossType = "dapo"
    """How token losses are summed; TRL's names."""
    scale_rewards: Literal["group", "batch", "none"] | bool = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, or nothing."""
    mask_truncated_completions: bool = False
    """Leave completions that hit the length limit out of the loss."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about 20 % more time."""
    logging_steps: Positive = 1
    """Optimizer steps between two lines of `metrics.jsonl`."""
    save_steps: Positive = 50
    """Optimizer steps between two checkpoints."""
    save_total_limit: Positive | None = 2
    """Checkpoints kept; null keeps all."""
    seed: NonNegative = 3407
    """Seed of everything random in the run: adapter, data order, held-out problems, sampling."""
