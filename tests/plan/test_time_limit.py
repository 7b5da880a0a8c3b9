from __future__ import annotations

import re

import pytest
from planning import COLOCATE, cluster, config, planned

from grpo_dist.errors import PlanError
from grpo_dist.plan import plan_run
from grpo_dist.plan.checks import check_one_step, deadline_warnings, seconds_of


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("1:30:00", 5400),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("1-00:00:01", 86_401),
        ("12:00:00", 43_200),
    ],
)
def test_slurms_ways_to_write_a_time(written, seconds):
    assert seconds_of(written) == seconds


def warned(per_step: float, hours: float | None, save_steps: int = 10, **machines) -> list[str]:
    stated = config(cluster={"gpus_per_node": 8, "time": "2:00:00", **machines})
    return list(deadline_warnings(stated, per_step, hours, save_steps))


def test_a_run_that_ends_in_time_says_nothing():
    assert warned(60.0, 1.5) == warned(60.0, None) == []


def test_a_longer_run_says_in_how_many_jobs():
    [one] = warned(60.0, 5.0)
    assert "the run takes 5.0 h" in one
    assert "continued in 3 jobs" in one
    [setting] = re.findall(r"--set cluster\.time=(\S+)", one)
    assert seconds_of(setting) > 5 * 3600


def test_more_jobs_than_requeues_are_named():
    assert "it needs 32 jobs, and cluster.max_requeues allows 21" in warned(60.0, 60.0)[0]


def test_a_step_longer_than_a_job_never_ends():
    [one] = warned(30_000.0, 100.0)
    assert "no step is ever done" in one


@pytest.mark.parametrize(
    ("time", "signal", "per_step", "limit", "enough"),
    [
        ("10:00", 300, 100, None, True),
        ("00:06:00", 300, None, None, False),
        ("02:00:00", 300, 7000, None, False),
        ("24:00:00", 300, 30, 300, False),
        ("24:00:00", 60, 30, 300, True),
        ("5", 600, None, None, False),
    ],
)
def test_a_job_without_time_for_a_step_is_refused(time, signal, per_step, limit, enough):
    stated = config(cluster={"time": time, "signal_seconds": signal})
    if enough:
        return check_one_step(stated, per_step, limit)
    with pytest.raises(PlanError, match="no step is ever done") as refused:
        check_one_step(stated, per_step, limit)
    [asked] = re.findall(r"time=(\S+?)(?:,| |$)", refused.value.hint)
    check_one_step(config(cluster={"time": asked, "signal_seconds": signal}), per_step)


def test_checkpoints_rarer_than_jobs_are_said():
    found = warned(900.0, 5.0, save_steps=20)
    assert "--set grpo.save_steps=7" in found[0]
    assert len(found) == 2


def test_what_is_suggested_is_not_warned_of():
    sections = {"rollout": COLOCATE, "grpo": {"prompts_per_step": 64, "max_steps": 5000}}
    plan = planned(cluster=cluster(1, 8, time="1:00:00"), **sections)
    [setting] = re.findall(r"--set cluster\.time=([^\s;,]+)", " ".join(plan.warnings))
    again = plan_run(config(cluster=cluster(1, 8, time=setting), **sections))
    assert not any("cluster.time" in warning for warning in again.warnings)
