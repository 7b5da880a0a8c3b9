"""The algorithm: quantities of a whole step, and all other fields of TRL's `GRPOConfig`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from grpo_dist.config.base import Conflict, NonNegative, Positive, Section, TimeLimit, accept, seconds_of
from grpo_dist.config.generation_fields import OWN_IN_BOTH, SHORTEST
from grpo_dist.config.trl_fields import (
    OWNED,
    PASSED_ON,
    CorrectionMode,
    LossType,
    OptimizerName,
    SchedulerName,
)

SCHEDULER_ARGUMENTS = {
    "cosine_with_min_lr": ("min_lr_rate", "min_lr"),
    "cosine_warmup_with_min_lr": ("min_lr_rate", "min_lr"),
    "warmup_stable_decay": ("num_decay_steps",),
}
"""Scheduler → the `lr_scheduler_kwargs` one of which Transformers requires."""

LEAST_TEMPERATURE = 0.01
"""vLLM 0.31 samples at this temperature if asked for one between it and 0 (`SamplingParams`, `_MAX_TEMP`)."""

OURS = frozenset({"prompts_per_step", "max_num_gen_batches", "max_time"})
"""Fields of `GrpoSection` that `GRPOConfig` does not have."""


@dataclass(frozen=True)
class _Extra:
    """A value under `grpo:` with its name, which pydantic does not tell the validator of extra values."""

    name: str
    value: Any


def _check_extra(extra: _Extra) -> Any:
    if extra.name not in PASSED_ON:
        reason = OWNED.get(extra.name, "no field of TRL's GRPOConfig")
        raise PydanticCustomError("extra_forbidden", "{reason}", {"reason": reason})
    kind = PASSED_ON[extra.name]
    checked = Annotated[kind, BeforeValidator(partial(accept, kind))]
    return TypeAdapter(checked, config=ConfigDict(allow_inf_nan=False)).validate_python(extra.value)


class GrpoSection(Section):
    """TRL's `GRPOConfig`, with quantities for the whole run.

    The fields below have a default or a check of this package. Any other `GRPOConfig` field may be given too and is
    passed on unchanged, except those the planner derives.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(_check_extra)]]

    prompts_per_step: Positive = 8
    """Different prompts per optimizer step, over all processes."""
    num_generations: int = Field(default=8, ge=2)
    """Completions per prompt: the group whose rewards are compared."""
    max_num_gen_batches: Positive = 1
    """Most generation batches per step: groups with equal rewards are replaced from later batches; 1 is off."""
    max_completion_length: Positive = 512
    """Longest completion, in tokens."""
    max_steps: int = Field(default=-1, ge=-1)
    """Optimizer steps; overrides num_train_epochs when positive."""
    num_train_epochs: float = Field(default=1.0, gt=0)
    """Passes over the training problems."""
    max_time: TimeLimit | None = None
    """Training ends with the first step that is done after this time, counted over all attempts, and the adapter is
    compared as it is then. Minutes, hours:minutes:seconds, or days-hours:minutes:seconds."""
    learning_rate: float = Field(default=5e-6, ge=0)
    """Peak learning rate."""
    lr_scheduler_type: SchedulerName = "linear"
    """Transformers' scheduler name."""
    warmup_steps: float = Field(default=0.1, ge=0)
    """Optimizer steps of warm-up; below 1 a fraction of all steps."""
    weight_decay: float = Field(default=0.001, ge=0)
    """AdamW weight decay."""
    optim: OptimizerName = "adamw_torch"
    """Transformers' optimizer name."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradient clipping by norm; 0 is off."""
    temperature: float = Field(default=1.0, ge=LEAST_TEMPERATURE)
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
    vllm_importance_sampling_correction: bool = True
    """Correct for the difference between the trainer's probabilities and vLLM's."""
    vllm_importance_sampling_mode: CorrectionMode = "token_truncate"
    """Whose ratio is the weight, and how ratios outside the bounds are treated; TRL's own default is `sequence_mask`.
   """
    vllm_importance_sampling_clip_max: float | None = Field(default=3.0, gt=0)
    """Upper bound of the ratio; null is none."""
    vllm_importance_sampling_clip_min: float | None = Field(default=None, ge=0)
    """Lower bound of the ratio; null is none."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about 20 % more time."""
    logging_steps: Positive = 1
    """Optimizer steps between two lines of `metrics.jsonl`."""
    save_steps: Positive = 50
    """Optimizer steps between two checkpoints."""
    save_total_limit: Annotated[int, Field(ge=2)] | None = 2
    """Checkpoints kept; null keeps all. At least 2: while one is written, the previous one must still exist."""
    seed: NonNegative = 3407
    """Seed of everything random in the run: adapter, data order, held-out problems, sampling."""

    def trl_fields(self) -> dict[str, Any]:
        """The fields for TRL's `GRPOConfig`, as configured."""
        return self.model_dump(exclude=OURS)

    @property
    def project(self) -> str | None:
        """The name of the trackers' project, if it is stated."""
        return self._extra("project")

    @model_validator(mode="before")
    @classmethod
    def _name_extras(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: v if name in cls.model_fields else _Extra(name, v) for name, v in values.items()}

    def conflicts(self) -> Iterator[Conflict]:
        yield from self._schedule_conflicts()
        yield from self._loss_conflicts()
        yield from self._dynamic_sampling_conflicts()
        yield from self._importance_sampling_conflicts()
        yield from self._generation_conflicts()
        yield from self._dataloader_conflicts()

    def _extra(self, name: str, default: Any = None) -> Any:
        return (self.model_extra or {}).get(name, default)

    def _schedule_conflicts(self) -> Iterator[Conflict]:
        if self.max_steps == 0:
            yield ("max_steps",), "0 steps train nothing; state how many, or -1 for as many as num_train_epochs gives"
        if self.max_time is not None and not seconds_of(self.max_time):
            yield ("max_time",), "no time trains nothing; set for example max_time: 02:00:00, or leave it out"
        needed = SCHEDULER_ARGUMENTS.get(self.lr_scheduler_type, ())
        if needed and not any(name in (self._extra("lr_scheduler_kwargs") or {}) for name in needed):
            example = f"{needed[0]}: {0.1 if len(needed) == 2 else 10}"
            what = f"{self.lr_scheduler_type} needs {needed[0]}; add `lr_scheduler_kwargs: {{{example}}}` beside it"
            yield ("lr_scheduler_type",), what
        if self.optim.startswith(("galore", "apollo")) and not self._extra("optim_target_modules"):
            yield ("optim",), f"{self.optim} needs to know its layers; add `optim_target_modules: all-linear` beside it"

    def _loss_conflicts(self) -> Iterator[Conflict]:
        delta, low, high = self._extra("delta"), self._extra("entropy_coef_min", 0), self._extra("entropy_coef_max", 1)
        if delta is not None and delta <= 1 + self.epsilon:
            yield ("delta",), f"{delta} clips inside the range epsilon leaves free; set more than {1 + self.epsilon:g}"
        if low > high:
            where = "entropy_coef_min" if self._extra("entropy_coef_min") is not None else "entropy_coef_max"
            yield (where,), f"entropy_coef_min {low} is above entropy_coef_max {high}; set it to at most {high}"

    def _dynamic_sampling_conflicts(self) -> Iterator[Conflict]:
        """A group that replaces another keeps its advantages, so they must not depend on the rest of its batch."""
        if self.max_num_gen_batches == 1:
            return
        if self.scale_rewards == "batch":
            yield ("scale_rewards",), "cannot be batch with grpo.max_num_gen_batches above 1; set group or none"
        if self._extra("multi_objective_aggregation") == "normalize_then_sum":
            why = "normalizes over a batch, of which grpo.max_num_gen_batches above 1 replaces groups; remove one"
            yield ("multi_objective_aggregation",), f"normalize_then_sum {why}"

    def _importance_sampling_conflicts(self) -> Iterator[Conflict]:
        """TRL's own rules (`GRPOConfig.__post_init__`)."""
        prefix = "vllm_importance_sampling_"
        low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        mode = self.vllm_importance_sampling_mode
        if low is not None and high is not None and low >= high:
            yield (prefix + "clip_min",), f"{low} is not below {prefix}clip_max, {high}; lower it"
        corrects = self.vllm_importance_sampling_correction
        if corrects and mode.endswith("_truncate") and low is None and high is None:
            if prefix + "mode" in self.model_fields_set:
                yield (prefix + "mode",), f"{mode} needs a bound to truncate at; set {prefix}clip_max: 3.0 beside it"
            else:
                yield (prefix + "clip_max",), f"null leaves {mode} no bound to truncate at; set it to 3.0"

    def _generation_conflicts(self) -> Iterator[Conflict]:
        for name, value in (self._extra("generation_kwargs") or {}).items():
            if name in OWN_IN_BOTH:
                yield ("generation_kwargs", name), OWN_IN_BOTH[name]
            elif name in SHORTEST and isinstance(value, int) and value > self.max_completion_length:
                why = f"{value} is more than grpo.max_completion_length, {self.max_completion_length}; lower it"
                yield ("generation_kwargs", name), why

    def _dataloader_conflicts(self) -> Iterator[Conflict]:
        if self._extra("dataloader_num_workers", 0) > 0:
            return
        for name in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
            if self._extra(name):
                yield (name,), "needs worker processes; set grpo.dataloader_num_workers, or remove it"
