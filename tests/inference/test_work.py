from __future__ import annotations

import pytest

from grpo_dist.inference import engine as working
from grpo_dist.inference.engine import EngineActivity


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


def taken_away(work: EngineActivity, clock: Clock, seconds: float) -> None:
    with pytest.raises(Gone), work.one():
        clock.now += seconds
        raise Gone


def test_an_engine_with_work_is_stalled_since_its_last_sign(clock):
    work = EngineActivity()
    assert (work.stalled_seconds, work.busy_seconds) == (0.0, 0.0)
    with work.one():
        clock.now += 4
        assert work.stalled_seconds == 4
        work.sign()
        clock.now += 2
        with work.one():
            clock.now += 1
            assert work.stalled_seconds == 3
        assert work.stalled_seconds == 0
    clock.now += 50
    assert (work.in_flight, work.stalled_seconds, work.busy_seconds) == (0, 0.0, 7.0)
    with work.one():
        assert work.stalled_seconds == 0


def test_silence_adds_up_over_callers_that_lose_patience(clock):
    work = EngineActivity()
    for _ in range(3):
        taken_away(work, clock, 30)
        clock.now += 500
    assert work.stalled_seconds == 0
    with work.one():
        clock.now += 5
        assert work.stalled_seconds == 95
        work.sign()
        assert work.stalled_seconds == 0
    taken_away(work, clock, 1)
    with work.one():
        assert work.stalled_seconds == 1
    assert work.busy_seconds == 96
