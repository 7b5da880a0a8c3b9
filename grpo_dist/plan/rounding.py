"""Warns before a run how little rounding leaves of completions that are weighted as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from grpo_dist.config import RunConfig
from grpo_dist.plan.checks import corrects_sampling
from grpo_dist.plan.effective_sample import effective_share

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
