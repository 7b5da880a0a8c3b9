from __future__ import annotations

import pytest

from grpo_dist.training.trainer.callbacks import PATIENCE, Alerts


def test_a_sign_is_told_once_when_it_has_stood_long_enough():
    alerts = Alerts("token_truncate")
    told = [list(alerts.of({"frac_reward_zero_std": 1.0})) for _ in range(PATIENCE + 2)]
    assert [len(texts) for texts in told] == [0] * (PATIENCE - 1) + [1, 0, 0]
    assert "nothing to learn from, or nothing left" in told[PATIENCE - 1][0]


def test_a_step_that_is_well_starts_the_count_again():
    alerts = Alerts("token_truncate")
    cut = {"completions/clipped_ratio": 0.9}
    for logs in (cut, cut, {"completions/clipped_ratio": 0.1}, cut, cut):
        assert list(alerts.of(logs)) == []
    [text] = alerts.of(cut)
    assert "grpo.max_completion_length" in text


def test_a_sign_that_comes_back_is_not_told_again():
    alerts = Alerts("token_truncate")
    one, well = {"frac_reward_zero_std": 1.0}, {"frac_reward_zero_std": 0.5}
    told = [text for logs in (one, one, one, well, one, one, one) for text in alerts.of(logs)]
    assert len(told) == 1


def test_metrics_that_are_not_there_say_nothing():
    alerts = Alerts("token_truncate")
    assert [list(alerts.of({"frac_reward_zero_std": None})) for _ in range(5)] == [[]] * 5


@pytest.mark.parametrize(
    ("mode", "advice"),
    [
        ("sequence_mask", "set grpo.vllm_importance_sampling_mode to token_truncate"),
        ("sequence_truncate", "set grpo.vllm_importance_sampling_mode to token_truncate"),
        ("token_truncate", "the engines sample from another distribution"),
        ("token_mask", "the engines sample from another distribution"),
    ],
)
def test_a_small_effective_sample_is_told_with_what_to_do(mode, advice):
    alerts = Alerts(mode)
    told = [list(alerts.of({"sampling/effective_sample_size": 0.03})) for _ in range(PATIENCE)]
    assert told[:-1] == [[]] * (PATIENCE - 1)
    [text] = told[-1]
    assert advice in text


def test_an_effective_sample_that_is_large_enough_is_not_told():
    alerts = Alerts("sequence_mask")
    shares = (0.3, 0.3, 0.6, 0.3, 0.3, 1.0, None, 0.97)
    assert [list(alerts.of({"sampling/effective_sample_size": share})) for share in shares] == [[]] * len(shares)
