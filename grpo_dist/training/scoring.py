"""One forward pass less under vLLM's importance-sampling correction."""

from __future__ import annotations

import math
from typing import Any

import torch
from trl import GRPOTrainer

IS_TRLS_OWN = GRPOTrainer.__module__ == "trl.trainer.grpo_trainer"
"""Not on a GPU under Unsloth, which scores by code of its own."""

SAMPLING_METRICS = (
    "sampling/sampling_logp_difference/mean",
    "sampling/sampling_logp_difference/max",
    "sampling/importance_sampling_ratio/min",
    "sampling/importance_sampling_ratio/mean",
    "sampling/importance_sampling_ratio/max",
)


class DeferredScoring(GRPOTrainer):
    """Takes the correction from the loss's own forward pass, where TRL runs another one before it.

    TRL scores all completions after generation, because the model that is trained gives its tokens other
    log-probabilities than vLLM did (`_generate_and_score_completions`, TRL 1.16). As long as completions serve a single
    optimizer step, the model is the same when the loss is computed, and so are the log-probabilities. What is run is
    TRL's code; it gets `importance_sampling_ratio` as soon as these are known. `old_per_token_logps` it replaces itself
    where there are none.

    Not while evaluating, not where completions outlive a step (`num_iterations` above 1), nor with tools or rollout
    functions, nor with `vespo`, whose weights take in the ratio of padding, nor with dropout, by which TRL's two passes
    differ.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dropout = has_dropout(self.model)
        self._scoring_is_next = False
        self._uncorrected: dict[str, Any] | None = None
        self._measured: list[tuple[torch.Tensor, torch.Tensor]] = []

    def _defers_scoring(self) -> bool:
        return (
            self.model.training
            and self.use_vllm
            and self.vllm_importance_sampling_correction
            and self.num_iterations == 1
            and self.args.gradient_accumulation_steps % self.args.steps_per_generation == 0
            and self.loss_type != "vespo"
            and not self._dropout
            and not (self.tools or self.environment_factories or self.rollout_func)
            and IS_TRLS_OWN
            and not self.args.use_liger_kernel  # may come with a loss of its own, which scores out of our sight
        )

    def _generate(self, prompts: list) -> Any:
        generated = super()._generate(prompts)
        self._scoring_is_next = self._defers_scoring()
        return generated

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self._defers_scoring():
            del output["old_per_token_logps"], output["importance_sampling_ratio"]
            for name in SAMPLING_METRICS:
                self._metrics["train"][name].pop()  # measured on no scores
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self._defers_scoring():
            self._uncorrected = inputs = dict(inputs)  # the buffered one stays as it is
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        if self._scoring_is_next:
            self._scoring_is_next = False
            # Not known yet. Read by mistake, they would make the loss NaN.
            return torch.full((len(input_ids), logits_to_keep), math.nan, device=input_ids.device), None, None
        scored = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        if self._uncorrected is not None:
            inputs, self._uncorrected = self._uncorrected, None
            self._correct(inputs, scored[0].detach())
        return scored

    def _correct(self, inputs: dict[str, Any], logps: torch.Tensor) -> None:
        """Put the ratio into `inputs`; logps: (B, T) of the model that is trained."""
        sampling_logps, mask = inputs["sampling_per_token_logps"], inputs["completion_mask"]
        mode = self.vllm_importance_sampling_mode
        ratio = importance_sampling_ratio(
            logps - sampling_logps,
            mask,
            mode=mode,
            clip_min=self.vllm_importance_sampling_clip_min,
            clip_max=self.vllm_importance_sampling_clip_max,
        )
        inputs["importance_sampling_ratio"] = ratio
        differences = (logps - sampling_logps).abs()
        counted = mask.bool() & ~differences.isnan()
        self._measured.append((differences[counted], ratio.flatten() if _of_sequence(mode) else ratio[mask.bool()]))
        if len(self._measured) == self.args.steps_per_generation:
            self._report_measured()

    def _report_measured(self) -> None:
        """Metrics of one generation batch: means of processes, and extremes."""
        differences, ratios = (torch.cat(parts) for parts in zip(*self._measured, strict=True))
        self._measured.clear()
        differences, ratios = (values if len(values) else values.new_zeros(1) for values in (differences, ratios))
        local = torch.stack([differences.mean(), differences.max(), ratios.min(), ratios.mean(), ratios.max()])
        mean_difference, max_difference, low, mean, high = self.accelerator.gather(local[None]).unbind(dim=1)
        over_processes = (mean_difference.mean(), max_difference.max(), low.min(), mean.mean(), high.max())
        for name, value in zip(SAMPLING_METRICS, torch.stack(over_processes).tolist(), strict=True):
            self._metrics["train"][name].append(value)


def importance_sampling_ratio(
    difference: torch.Tensor, mask: torch.Tensor, *, mode: str, clip_min: float | None, clip_max: float | None
) -> torch.Tensor:
    """TRL's ratio of the trained model's probabilities to vLLM's (`_generate_and_score_completions`, TRL 1.16).

    Args:
        difference: (B, T) log-probabilities less vLLM's; NaN where vLLM gave none, which counts as no difference.
        mask: (B, T), 1 where a token counts.
        mode: `vllm_importance_sampling_mode`.
        clip_min: ratios below are raised to it (`*_truncate`) or become 0 (`*_mask`).
        clip_max: likewise, above.

    Returns:
        (B, T) per token, (B, 1) for `sequence_*`.
    """
    logs = torch.nan_to_num(difference * mask, nan=0.0)
    ratio = torch.exp(logs.sum(dim=-1, keepdim=True) if _of_sequence(mode) else logs)
    if mode.endswith("_truncate"):
        return torch.clamp(ratio, min=clip_min, max=clip_max)
    low = -math.inf if clip_min is None else clip_min
    high = math.inf if clip_max is None else clip_max
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


def has_dropout(model: torch.nn.Module) -> bool:
    """Whether two passes over the same tokens differ in training: by dropout of adapter, layers or attention."""
    layers = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return layers or bool(getattr(model.config.get_text_config(), "attention_dropout", None))


def _of_sequence(mode: str) -> bool:
    return mode.startswith("sequence_")
