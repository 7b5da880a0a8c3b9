"""The effective size of a batch when completions are weighted by an importance ratio that is mostly rounding.

Engine and trainer round differently, so their log-probabilities of a token differ even when the weights are the same.
Over T tokens with a standard deviation of `sigma` each, the sum of these differences is about normal, N(-v/2, v) with
v = sigma² T: its mean makes the ratio exp(sum) 1 on average, as it is for any two distributions.

The effective sample is (Σw)² / (n Σw²) of the weights w: 1 if all are equal, 1/n if only one is not zero.
"""

from __future__ import annotations

import math
from statistics import NormalDist

NEGLIGIBLE = 600.0
"""Variance of the sum above which nothing is left; `exp` of slightly more overflows."""
PHI = NormalDist().cdf


def effective_share(
    sigma: float, tokens: int, *, mode: str, clip_min: float | None = None, clip_max: float | None = 3.0
) -> float:
    """The effective sample of completions of one length, as a share of their number.

    Args:
        sigma: standard deviation of a token's difference, in nats.
        tokens: of each completion.
        mode: TRL's `vllm_importance_sampling_mode`; with `token_*` a weight has one factor, however many tokens.
        clip_min: smaller ratios are raised to it (`*_truncate`) or become 0 (`*_mask`).
        clip_max: likewise for larger ratios.
    """
    variance = sigma**2 * (tokens if mode.startswith("sequence_") else 1)
    if not variance:
        return 1.0
    if variance > NEGLIGIBLE:
        return 0.0
    low = math.log(clip_min) if clip_min else -math.inf
    high = math.inf if clip_max is None else math.log(clip_max)
    first, second = (_moment(order, low, high, variance) for order in (1, 2))
    if mode.endswith("_truncate"):
        below, above = _share(-math.inf, low, 0, variance), _share(high, math.inf, 0, variance)
        first += (clip_min or 0) * below + (clip_max or 0) * above
        second += (clip_min or 0) ** 2 * below + (clip_max or 0) ** 2 * above
    return first**2 / second if second else 0.0


def _moment(order: int, low: float, high: float, variance: float) -> float:
    """E[r^order] over the ratios whose logarithm is between the bounds."""
    return math.exp(order * (order - 1) / 2 * variance) * _share(low, high, order, variance)


def _share(low: float, high: float, order: int, variance: float) -> float:
    """Probability that a normal variable around (order - 1/2) · variance is between the bounds."""
    deviation = math.sqrt(variance)
    centre = (order - 0.5) * variance
    return PHI((high - centre) / deviation) - PHI((low - centre) / deviation)
