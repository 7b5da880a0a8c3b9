from __future__ import annotations

from grpo_dist.training.alerts import PATIENCE, Alerts


def test_a_sign_is_told_once_when_it_has_stood_long_enough():
    alerts = Alerts()
    told = [list(alerts.of({"frac_reward_zero_std": 1.0})) for _ in range(PATIENCE + 2)]
    assert [len(texts) for texts in told] == [0] * (PATIENCE - 1) + [1, 0, 0]
    assert "nothing to learn from, or nothing left" in told[PATIENCE - 1][0]


def test_a_step_that_is_well_starts_the_count_again():
    alerts = Alerts()
    cut = {"completions/clipped_ratio": 0.9}
    for logs in (cut, cut, {"completions/clipped_ratio": 0.1}, cut, cut):
        assert list(alerts.of(logs)) == []
    [text] = alerts.of(cut)
    assert "grpo.max_completion_length" in text


def test_a_sign_that_comes_back_is_not_told_again():
    alerts = Alerts()
    one, well = {"frac_reward_zero_std": 1.0}, {"frac_reward_zero_std": 0.5}
    told = [text for logs in (one, one, one, well, one, one, one) for text in alerts.of(logs)]
    assert len(told) == 1


def test_metrics_that_are_not_there_say_nothing():
    alerts = Alerts()
    assert [list(alerts.of({"frac_reward_zero_std": None})) for _ in range(5)] == [[]] * 5
