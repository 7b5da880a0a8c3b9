"""What the canary makes of log-probabilities; with real engines in test_vllm_faults.py."""

from __future__ import annotations

import pytest
import torch

from grpo_dist.errors import RolloutError
from grpo_dist.training.rollouts.canary import TELLING_TOKENS, Canary, CanaryScores

TOLERANCE = 0.1
NOISE = 0.003
"""Of bfloat16, as measured on CPU."""


def scores(shown: float, learnt: float, tokens: int = 64, seed: int = 0) -> CanaryScores:
    """An engine with so much of an adapter that changes each log-probability by about `learnt`."""
    generator = torch.Generator().manual_seed(seed)
    base = -torch.rand(tokens, generator=generator)
    adapter = learnt * torch.randn(tokens, generator=generator)
    served = base + shown * adapter + NOISE * torch.randn(tokens, generator=generator)
    return CanaryScores(served, base + adapter, base)


def rounded(shown: float, learnt: float, noise: float, *, tokens: int = 128, seed: int = 0) -> CanaryScores:
    """The same where the trainer rounds too, in each of its passes, and some tokens hardly ever change."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.randn(tokens, generator=generator) * torch.rand(tokens, generator=generator) * 3**0.5

    base, adapter = -torch.rand(tokens, generator=generator), learnt * draw()
    served, trained = base + shown * adapter + noise * draw(), base + adapter + noise * draw()
    return CanaryScores(served, trained, base + noise * draw())


def check(**engines: CanaryScores) -> float:
    canary = Canary.__new__(Canary)
    canary.tolerance = TOLERANCE
    return canary.check(engines, "policy-7")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("learnt", [0.0, NOISE / 3, NOISE, 3 * NOISE, 1.0])
def test_rounding_is_no_fault_however_little_was_learnt(learnt, seed):
    assert check(engine=scores(1.0, learnt, seed=seed)) < 2 * NOISE


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("learnt", [5 * NOISE, 0.05, 1.0])
def test_a_missing_adapter_is_told_from_rounding_within_the_tolerance_too(learnt, seed):
    with pytest.raises(RolloutError, match=r"second does not serve policy-7.*serves the base model.*; 1 others agree"):
        check(first=scores(1.0, learnt), second=scores(0.0, learnt, seed=seed))


def test_a_few_tokens_tell_nothing_within_the_tolerance():
    assert check(engine=scores(0.0, 0.05, tokens=TELLING_TOKENS - 1)) < TOLERANCE


def test_unknown_log_probabilities_are_no_agreement():
    unknown = scores(1.0, 0.05)
    unknown.served[3] = torch.nan
    with pytest.raises(RolloutError):
        check(engine=unknown)


@pytest.mark.parametrize("noise", [0.003, 0.05])
@pytest.mark.parametrize("learnt", [0.0, 0.3, 1.0, 3.0, 10.0, 100.0])
def test_the_right_adapter_is_never_taken_for_a_share_of_it(learnt, noise):
    """By multiples of the rounding, which the trainer's own scores have too; a run has many checks."""
    for seed in range(300):
        assert check(engine=rounded(1.0, learnt * noise, noise, seed=seed)) < TOLERANCE


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shown", [0.5, 2.0, 0.6, -1.0])
@pytest.mark.parametrize("noise", [0.003, 0.012])
def test_a_wrong_scale_is_told_within_the_tolerance(shown, noise, seed):
    scored = rounded(shown, 6 * noise, noise, seed=seed)
    assert (scored.served - scored.trained).abs().mean() < TOLERANCE or shown < 0
    with pytest.raises(RolloutError, match="does not serve policy-7"):
        check(engine=scored)
