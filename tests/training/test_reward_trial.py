"""Reward functions that crash, stall and raise, each in its own process."""

from __future__ import annotations

import pytest
from waiting import is_gone, until

from grpo_dist.config.sections import RewardFunction
from grpo_dist.rewards.guard import Batch
from grpo_dist.rewards.load import load_rewards
from grpo_dist.rewards.preflight.cases import Case
from grpo_dist.training.rewards.trial import RewardRunner

MINE = """
import asyncio, os, subprocess, sys, time

def stalls(completions, **_):
    if "stall" in completions[0]:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open(os.environ["CHILD"], "w").write(str(child.pid))
        time.sleep(600)
    return [1.0] * len(completions)

def crashes(completions, **_):
    if "stall" in completions[0]:
        os._exit(3)
    return [1.0] * len(completions)

def leaves(completions, **_):
    sys.exit("enough")

def raises(completions, answer, **_):
    print("words on standard output disturb nobody")
    return [1 / (0 if "stall" in text else 1) for text in completions]

async def waits(completions, trainer_state, log_metric, completion_ids, **_):
    await asyncio.sleep(0)
    log_metric("seen", trainer_state.global_step)
    return [float(len(ids)) for ids in completion_ids]
"""


@pytest.fixture
def functions(tmp_path, monkeypatch) -> list[RewardFunction]:
    monkeypatch.setenv("CHILD", str(tmp_path / "child"))
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    names = ("stalls", "crashes", "leaves", "raises", "waits")
    return [RewardFunction(name=f"{path}:{name}") for name in names]


def batch(case: Case) -> Batch:
    count = len(case.completions)
    return Batch(["?"] * count, list(case.completions), {"answer": ["1"] * count, "completion_ids": [[1, 2]] * count})


def test_what_each_did_is_told_and_the_others_go_on(functions, tmp_path):
    cases = [Case("fine", ("a", "b"), (0, 1)), Case("bad", ("a stall", "b"), (0, 1)), Case("after", ("c",), (0,))]
    with RewardRunner(functions, load_rewards(functions), batch, limit_s=2.0) as bench:
        pids = [worker.process.pid for worker in bench.workers]
        stalls, crashes, leaves, raises, waits = bench.tried(bench.fresh(), cases)
    assert [one.name for one in stalls.failures] == ["reward-stalls"]
    assert "did not return within 2 s for 2 completions\n  in the case `bad`" in stalls.failures[0].what
    assert dict(stalls.paid) == {"fine": (1.0, 1.0)}
    assert [one.name for one in crashes.failures] == ["reward-crashes"]
    assert "exit code 3" in crashes.failures[0].what
    assert {one.name for one in leaves.failures} == {"reward-fails"}
    assert "raised SystemExit: enough" in leaves.failures[0].what
    assert [one.name for one in raises.failures] == ["reward-fails"]
    assert "ZeroDivisionError" in raises.failures[0].what
    assert set(raises.paid) == {"fine", "after"}
    assert waits.paid["bad"] == (2.0, 2.0)
    assert waits.failures == ()

    child = int((tmp_path / "child").read_text())
    until(lambda: all(map(is_gone, (*pids, child))), 20, lambda: "a process stayed behind")
