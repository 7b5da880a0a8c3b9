"""What the canary makes of log-probabilities; with real engines in test_vllm_faults.py."""

from __future__ import annotations

import pytest
import torch

from grpo_dist.errors import RolloutError
from grpo_dist.training.canary import TELLING_TOKENS, Canary, Scores

TOLERANCE = 0.1
NOISE = 0.003
"""Of bfloat16, as measured on CPU."""


def scores(shown: float, learnt: float, tokens: int = 64, seed: int = 0) -> Scores:
    """An engine with so much of an adapter that changes each log-probability by about `learnt`."""
    generator = torch.Generator().manual_seed(seed)
    base = -torch.rand(tokens, generator=generator)
    adapter = learnt * torch.randn(tokens, generator=generator)
    served = base + shown * adapter + NOISE * torch.randn(tokens, generator=generator)
    return Scores(served, base + adapter, base)


def check(**engines: Scores) -> float:
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
