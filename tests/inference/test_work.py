from __future__ import annotations

import pytest

from grpo_dist.inference import activity as working
from grpo_dist.inference.activity import EngineActivity


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(working, "time", clock)
    return clock


class Gone(Exception):
    """The caller has lost patience."""


def taken_away(activity: EngineActivity, clock: Clock, seconds: float) -> None:
    with pytest.raises(Gone), activity.request():
        clock.now += seconds
        raise Gone


def test_an_engine_with_work_is_stalled_since_its_last_output(clock):
    activity = EngineActivity()
    assert (activity.stalled_seconds, activity.busy_seconds) == (0.0, 0.0)
    with activity.request():
        clock.now += 4
        assert activity.stalled_seconds == 4
        activity.output()
        clock.now += 2
        with activity.request():
            clock.now += 1
            assert activity.stalled_seconds == 3
        assert activity.stalled_seconds == 0
    clock.now += 50
    assert (activity.in_flight, activity.stalled_seconds, activity.busy_seconds) == (0, 0.0, 7.0)
    with activity.request():
        assert activity.stalled_seconds == 0


def test_silence_adds_up_over_callers_that_lose_patience(clock):
    activity = EngineActivity()
    for _ in range(3):
        taken_away(activity, clock, 30)
        clock.now += 500
    assert activity.stalled_seconds == 0
    with activity.request():
        clock.now += 5
        assert activity.stalled_seconds == 95
        activity.output()
        assert activity.stalled_seconds == 0
    taken_away(activity, clock, 1)
    with activity.request():
        assert activity.stalled_seconds == 1
    assert activity.busy_seconds == 96
