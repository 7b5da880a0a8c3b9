"""The effective size of a batch when completions are weighted by an importance ratio that is mostly rounding.

Engine and trainer round differently, so their log-probabilities of a token differ even when the weights are the same.
Over T tokens with a standard deviation of `sigma` each, the sum of these differences is about normal, N(-v/2, v) with
v = sigma² T: its mean makes the ratio exp(sum) 1 on average, as it is for any two distributions.

The effective sample is (Σw)² / (n Σw²) of the weights w: 1 if all are equal, 1/n if only one is not zero.

`rounding_warnings` warns before a run how little rounding leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from grpo_dist.config import RunConfig
from grpo_dist.plan.checks import corrects_sampling

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


SIGMA = {"bfloat16": 0.05, "float16": 0.006, "float32": 0.0}
"""Standard deviation of a token's difference of log-probabilities by the type of the weights, in nats.

Of bfloat16: 0.0499 for Qwen2.5-0.5B-Instruct (TRL issue 6789), 0.065 for SmolLM2-135M-Instruct on a CPU
(`benchmarks/logprob_noise.py`). For float16 an eighth of it, like its rounding error; not measured.
"""
FAIR_SHARE = 0.8
"""Effective sample below which a plan warns."""


def rounding_warnings(config: RunConfig) -> Iterator[str]:
    """At most one warning, if the correction would leave much less than was sampled."""
    grpo, sigma = config.grpo, SIGMA[config.model.dtype]
    mode, tokens = grpo.vllm_importance_sampling_mode, grpo.max_completion_length
    low, high = grpo.vllm_importance_sampling_clip_min, grpo.vllm_importance_sampling_clip_max
    share = effective_share(sigma, tokens, mode=mode, clip_min=low, clip_max=high)
    if corrects_sampling(config) and share < FAIR_SHARE:
        yield (
            f"grpo.vllm_importance_sampling_mode: {mode} weighs a completion by the product of its tokens' ratios, and "
            f"in {config.model.dtype} engine and trainer differ by about {sigma:g} nats a token from rounding alone: "
            f"at grpo.max_completion_length {tokens} the effective sample is {_percent(share)} of the completions; "
            f"--set grpo.vllm_importance_sampling_mode=token_truncate weighs every token by its own"
        )


def _percent(share: float) -> str:
    return "less than 1 %" if share < 0.01 else f"about {100 * share:.0f} %"
