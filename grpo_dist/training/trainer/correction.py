"""TRL's correction for vLLM's probabilities, and how much weight it leaves the sampled completions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator

EFFECTIVE_SAMPLE_SIZE = "sampling/effective_sample_size"
LOW_WEIGHT_SHARE = "sampling/low_weight_share"
LOW_WEIGHT = 0.1
QUANTILES = {"p01": 0.01, "p50": 0.5, "p99": 0.99}
MOST_TOKENS = 2**22
"""Most values over all processes for the quantiles; of more, evenly spaced ones are used."""
LARGEST_LOG = 80.0
"""Largest reported logarithm of a ratio; `exp` of slightly more overflows float32."""


@dataclass(frozen=True)
class Correction:
    """TRL's `vllm_importance_sampling_*`."""

    mode: str
    clip_min: float | None
    """Smaller ratios are raised to it (`*_truncate`) or become 0 (`*_mask`)."""
    clip_max: float | None
    """Likewise, above."""

    @property
    def of_sequence(self) -> bool:
        """A completion has one weight: the product of its tokens' ratios."""
        return self.mode.startswith("sequence_")

    def weights(self, difference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """TRL's weights (`_generate_and_score_completions`, TRL 1.16): per token (B, T), for `sequence_*` (B, 1).

        Args:
            difference: (B, T) log-probabilities less vLLM's; NaN where vLLM gave none, which counts as no difference.
            mask: (B, T), 1 where a token counts.
        """
        logs = torch.nan_to_num(difference * mask, nan=0.0)
        ratio = torch.exp(logs.sum(dim=-1, keepdim=True) if self.of_sequence else logs)
        if self.mode.endswith("_truncate"):
            return torch.clamp(ratio, min=self.clip_min, max=self.clip_max)
        return ratio.masked_fill(self._outside(ratio), 0.0)

    def _outside(self, ratio: torch.Tensor) -> torch.Tensor:
        low = -math.inf if self.clip_min is None else self.clip_min
        high = math.inf if self.clip_max is None else self.clip_max
        return (ratio < low) | (ratio > high)


@dataclass(frozen=True)
class LogprobDifferences:
    """Ratios and weights of some completions; those without a token in the loss are left out."""

    differences: torch.Tensor
    """(tokens,) the trainer's log-probabilities less vLLM's, of the tokens for which vLLM gave any."""
    weights: torch.Tensor
    """(tokens,) or, for `sequence_*`, (completions,), as they enter the loss."""
    completions: torch.Tensor
    """(completions, 3): logarithm of the product of its tokens' ratios, that of their geometric mean, mean weight."""

    @classmethod
    def of(cls, correction: Correction, difference: torch.Tensor, mask: torch.Tensor) -> LogprobDifferences:
        """Arguments as for `Correction.weights`."""
        counted, weights = mask.bool(), correction.weights(difference, mask)
        known = counted & ~difference.isnan()
        rows = counted.any(dim=1)
        total = torch.where(known, difference, 0.0).sum(dim=1)
        mean_weight = torch.where(counted, weights, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        completions = torch.stack([total, total / known.sum(dim=1).clamp(min=1), mean_weight], dim=1)
        return cls(
            differences=difference[known],
            weights=weights[rows, 0] if correction.of_sequence else weights[counted],
            completions=completions[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence[LogprobDifferences]) -> LogprobDifferences:
        """Of all micro-batches of a process."""
        columns = ([getattr(part, name) for part in parts] for name in ("differences", "weights", "completions"))
        return cls(*(torch.cat(column) for column in columns))


def metrics(measured: LogprobDifferences, accelerator: Accelerator) -> dict[str, float]:
    """Metric → value, over the completions of all processes; empty if none counts.

    `effective_sample_size` is (Σw)² / (n Σw²) of the weights as they enter the loss, 0 to 1: of tokens, with
    `sequence_*` of completions. `low_weight_share` is the share of completions whose weight is below 0.1; with
    `token_*` that is the mean of their tokens' weights. The quantiles of `raw_ratio` are computed before any bound: of
    tokens, and of completions by the product of their tokens' ratios and by its geometric mean.
    """
    weights, differences = measured.weights.double(), measured.differences.double()
    sums = torch.stack(
        [
            *(weights.new_tensor(float(weights.numel())), weights.sum(), (weights**2).sum()),
            *(weights.new_tensor(float(differences.numel())), differences.sum(), (differences**2).sum()),
        ]
    )
    sums = accelerator.reduce(sums.to(accelerator.device), reduction="sum")
    count, total, squares, tokens, offset, spread = sums.tolist()
    completions = _gathered(measured.completions, accelerator)
    stride = max(1, math.ceil(tokens / MOST_TOKENS))
    differences = _gathered(measured.differences[::stride, None], accelerator)[:, 0]
    if not count:
        return {}
    found = {
        EFFECTIVE_SAMPLE_SIZE: total**2 / (count * squares) if squares else 0.0,
        LOW_WEIGHT_SHARE: (completions[:, 2] < LOW_WEIGHT).double().mean().item(),
    }
    if not tokens:
        return found
    variance = max(0.0, spread / tokens - (offset / tokens) ** 2)
    found["sampling/sampling_logp_difference/std"] = math.sqrt(variance)
    logs = {"token": differences, "sequence": completions[:, 0], "geometric_mean": completions[:, 1]}
    return found | {
        f"sampling/raw_ratio/{level}/{name}": value
        for level, values in logs.items()
        for name, value in zip(QUANTILES, _quantiles(values), strict=True)
    }


def _quantiles(logs: torch.Tensor) -> list[float]:
    ratios = logs.double().clamp(-LARGEST_LOG, LARGEST_LOG).exp()
    return torch.quantile(ratios, ratios.new_tensor(list(QUANTILES.values()))).tolist()


def _gathered(rows: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    """The rows of all processes, (rows, columns), however many each has."""
    rows = rows.float().to(accelerator.device)
    present = torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1)
    everyone = accelerator.gather(accelerator.pad_across_processes(present, dim=0))
    return everyone[everyone[:, 0] > 0, 1:]
