"""One forward pass less under vLLM's importance-sampling correction."""

from __future__ import annotations

import math
from typing import Any

import torch
from trl import GRPOTrainer

from grpo_dist.training.trainer.correction import Correction, LogprobDifferences, metrics

IS_TRLS_OWN = GRPOTrainer.__module__ == "trl.trainer.grpo_trainer"
"""Not on a GPU under Unsloth, which scores with its own code."""

SCORES = {"old_per_token_logps", "sampling_per_token_logps"}
SAMPLING_METRICS = (
    "sampling/sampling_logp_difference/mean",
    "sampling/sampling_logp_difference/max",
    "sampling/importance_sampling_ratio/min",
    "sampling/importance_sampling_ratio/mean",
    "sampling/importance_sampling_ratio/max",
)


class DeferredScoring(GRPOTrainer):
    """Takes the correction from the loss's own forward pass, where TRL runs a separate one before it.

    TRL scores all completions after generation, because the model that is trained gives its tokens other
    log-probabilities than vLLM did (`_generate_and_score_completions`, TRL 1.16). As long as completions serve a single
    optimizer step, the model is the same when the loss is computed, and so are the log-probabilities. The code that
    runs is TRL's; it gets `importance_sampling_ratio` as soon as these are known. TRL itself substitutes
    `old_per_token_logps` if there are none.

    Not during evaluation, nor when completions serve more than one step (`num_iterations` above 1), nor with tools or
    rollout functions, nor with `vespo`, whose weights include the ratio of padding, nor with dropout, which makes TRL's
    two passes differ.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dropout = has_dropout(self.model)
        self._scoring_is_next = False
        self._uncorrected: dict[str, Any] | None = None
        self._measured: list[tuple[LogprobDifferences, torch.Tensor]] = []

    def _defers_scoring(self) -> bool:
        return (
            self.model.training
            and self._corrects()
            and self.num_iterations == 1
            and self.args.gradient_accumulation_steps % self.args.steps_per_generation == 0
            and self.loss_type != "vespo"
            and not self._dropout
            and not (self.tools or self.environment_factories or self.rollout_func)
            and IS_TRLS_OWN
            and not self.args.use_liger_kernel  # may bring its own loss, which scores where we cannot see it
        )

    # Four methods of TRL 1.16 work together here, in this order. `_generate_and_score_completions` calls `_generate`,
    # then `_get_per_token_logps_and_entropies` for the old log-probabilities, and only then for those of a reference
    # model. Later `_compute_loss` calls it again, for the model that is trained, before it reads
    # `importance_sampling_ratio`. In another order the NaN below gets into the loss, or the ratio is missing (KeyError)
    # or that of another model.
    def _generate(self, prompts: list) -> Any:
        generated = super()._generate(prompts)
        self._scoring_is_next = self._defers_scoring()
        return generated

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self._defers_scoring():
            del output["old_per_token_logps"], output["importance_sampling_ratio"]
            # TRL 1.16 appends to each of these. Under another name this is an IndexError; a new one would log NaN.
            for name in SAMPLING_METRICS:
                self._metrics["train"][name].pop()  # TRL would measure without scores
        elif self.model.training and self._corrects() and output.keys() >= SCORES:  # Unsloth's trainer may lack them
            self._log_correction(self._measured_in(output, output["old_per_token_logps"]))
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self._defers_scoring():
            self._uncorrected = inputs = dict(inputs)  # the buffered one is not changed
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
            # Not known yet. If read by mistake, they make the loss NaN.
            return torch.full((len(input_ids), logits_to_keep), math.nan, device=input_ids.device), None, None
        scored = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        if self._uncorrected is not None:
            inputs, self._uncorrected = self._uncorrected, None
            self._correct(inputs, scored[0].detach())
        return scored

    def _corrects(self) -> bool:
        return bool(self.use_vllm and self.vllm_importance_sampling_correction)

    def _correction(self) -> Correction:
        return Correction(
            self.vllm_importance_sampling_mode,
            self.vllm_importance_sampling_clip_min,
            self.vllm_importance_sampling_clip_max,
        )

    def _correct(self, inputs: dict[str, Any], logps: torch.Tensor) -> None:
        """Put the ratio into `inputs`; logps: (B, T) of the model that is trained."""
        correction, mask = self._correction(), inputs["completion_mask"].bool()
        ratio = correction.weights(logps - inputs["sampling_per_token_logps"], mask)
        inputs["importance_sampling_ratio"] = ratio
        ratios = ratio.flatten() if correction.of_sequence else ratio[mask]
        self._measured.append((self._measured_in(inputs, logps), ratios))
        if len(self._measured) == self.args.steps_per_generation:
            self._report_deferred()

    def _report_deferred(self) -> None:
        parts, ratios = zip(*self._measured, strict=True)
        self._measured.clear()
        measured = LogprobDifferences.joined(parts)
        self._report_trls(measured.differences.abs(), torch.cat(ratios))
        self._log_correction(measured)

    def _measured_in(self, inputs: dict[str, Any], logps: torch.Tensor) -> LogprobDifferences:
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        return LogprobDifferences.of(self._correction(), logps - inputs["sampling_per_token_logps"], mask)

    def _log_correction(self, measured: LogprobDifferences) -> None:
        for name, value in metrics(measured, self.accelerator).items():
            self._metrics["train"][name].append(value)

    def _report_trls(self, differences: torch.Tensor, ratios: torch.Tensor) -> None:
        """TRL's own metrics of one generation batch: means of processes, and extremes."""
        differences, ratios = (values if len(values) else values.new_zeros(1) for values in (differences, ratios))
        local = torch.stack([differences.mean(), differences.max(), ratios.min(), ratios.mean(), ratios.max()])
        mean_difference, max_difference, low, mean, high = self.accelerator.gather(local[None]).unbind(dim=1)
        over_processes = (mean_difference.mean(), max_difference.max(), low.min(), mean.mean(), high.max())
        for name, value in zip(SAMPLING_METRICS, torch.stack(over_processes).tolist(), strict=True):
            self._metrics["train"][name].append(value)


def has_dropout(model: torch.nn.Module) -> bool:
    """Whether two passes over the same tokens differ in training: by dropout of adapter, layers or attention."""
    layers = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return layers or bool(getattr(model.config.get_text_config(), "attention_dropout", None))
