"""The effective sample against weights that are drawn, and what a plan says of it."""

from __future__ import annotations

import numpy as np
import pytest
from planning import COLOCATE, cluster, planned

from grpo_dist.plan.effective_sample import effective_share

DRAWN = 400_000


def simulated(sigma: float, tokens: int, mode: str, low: float | None, high: float | None) -> float:
    """The same from the definition: normal sums of differences, exponentiated, bounded."""
    deviation = sigma * tokens**0.5
    ratios = np.exp(np.random.default_rng(5).normal(-(deviation**2) / 2, deviation, DRAWN))
    below, above = -np.inf if low is None else low, np.inf if high is None else high
    if mode.endswith("_truncate"):
        weights = np.clip(ratios, below, above)
    else:
        weights = np.where((ratios < below) | (ratios > above), 0, ratios)
    return weights.sum() ** 2 / (DRAWN * (weights**2).sum())


@pytest.mark.parametrize("mode", ["sequence_mask", "sequence_truncate"])
@pytest.mark.parametrize(("low", "high"), [(None, 3.0), (0.5, 2.0), (0.2, 10.0), (0.9, 1.1)])
@pytest.mark.parametrize(("sigma", "tokens"), [(0.05, 128), (0.02, 2048), (0.03, 1024), (0.05, 3000)])
def test_the_share_is_that_of_drawn_weights(sigma, tokens, mode, low, high):
    share = effective_share(sigma, tokens, mode=mode, clip_min=low, clip_max=high)
    assert share == pytest.approx(simulated(sigma, tokens, mode, low, high), abs=0.01)


@pytest.mark.parametrize(
    ("sigma", "tokens", "share"),
    [
        (0.01, 512, 0.95),
        (0.01, 7168, 0.63),
        (0.02, 2048, 0.60),
        (0.03, 7168, 0.18),
        (0.05, 512, 0.51),
        (0.05, 7168, 0.03),
    ],
)
def test_trls_default_mode_loses_the_sample_with_length(sigma, tokens, share):
    assert effective_share(sigma, tokens, mode="sequence_mask") == pytest.approx(share, abs=0.02)


def test_without_bounds_the_share_is_that_of_a_log_normal_weight():
    found = effective_share(0.05, 400, mode="sequence_mask", clip_max=None)
    assert found == pytest.approx(np.exp(-(0.05**2) * 400))


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask"])
def test_token_modes_keep_the_sample_at_any_length(mode):
    assert effective_share(0.05, 100_000, mode=mode) == pytest.approx(np.exp(-(0.05**2)), abs=1e-6)


@pytest.mark.parametrize(("sigma", "tokens"), [(0.05, 10_000_000), (0.5, 32_768), (1e3, 1)])
def test_nothing_is_left_where_exp_would_overflow(sigma, tokens):
    assert effective_share(sigma, tokens, mode="sequence_mask") == pytest.approx(0.0, abs=1e-9)


def warned(model: dict | None = None, rollout: dict | None = None, **grpo) -> list[str]:
    plan = planned(cluster=cluster(1, 8), model_section=model or {}, rollout=rollout or COLOCATE, grpo=grpo)
    return [text for text in plan.warnings if "effective sample" in text]


@pytest.mark.parametrize("mode", ["sequence_mask", "sequence_truncate"])
def test_a_plan_states_what_long_completions_leave(mode):
    [text] = warned(vllm_importance_sampling_mode=mode, max_completion_length=7168)
    assert text.startswith(f"grpo.vllm_importance_sampling_mode: {mode} ")
    assert "7168" in text
    assert "--set grpo.vllm_importance_sampling_mode=token_truncate" in text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vllm_importance_sampling_mode": "token_mask"},
        {"vllm_importance_sampling_mode": "sequence_mask", "max_completion_length": 64},
        {"vllm_importance_sampling_mode": "sequence_mask", "vllm_importance_sampling_correction": False},
        {"vllm_importance_sampling_mode": "sequence_mask", "model": {"dtype": "float32"}},
        {"vllm_importance_sampling_mode": "sequence_mask", "rollout": {"backend": "transformers"}},
    ],
    ids=["default", "token", "short", "no correction", "float32", "no vLLM"],
)
def test_and_nothing_where_the_sample_stays_whole(changes):
    assert warned(**{"max_completion_length": 4096, **changes}) == []
