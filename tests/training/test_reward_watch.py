"""Rewards that hang, end the process or leave something behind are named with their step."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from grpo_dist.progress import ERROR_MARK
from grpo_dist.run.control import running_rewards
from grpo_dist.run.directory import ATTEMPT_VARIABLE

PROGRAM = """
import os, re, subprocess, sys, threading, time
from types import SimpleNamespace
from grpo_dist.rewards.load import LoadedReward
from grpo_dist.training.rewards.watch import RewardWatch
from grpo_dist.training.common.process import as_process

def exits(completions, **_):
    os._exit(3)

def crashes(completions, **_):
    os.kill(os.getpid(), 11)

def sleeps(completions, **_):
    time.sleep(600)

def backtracks(completions, **_):
    re.match("(a+)+b", "a" * 60)

def starts(completions, **_):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    threading.Thread(target=time.sleep, args=(600,), name="forgotten").start()
    return [1.0] * len(completions)

def prints(completions, **_):
    sys.stdout = open(os.devnull, "w")
    return [1.0] * len(completions)

def leaves(completions, **_):
    print("no line end", end="")
    sys.exit(0)

def work():
    watch = RewardWatch(0, 2.0)
    reward = LoadedReward(f"mine.py:{sys.argv[1]}", 1.0, globals()[sys.argv[1]], {}, watch)
    for step in (4, 5):
        paid = reward(prompts=["?"], completions=["x"], trainer_state=SimpleNamespace(global_step=step))
    print("paid", paid, flush=True)
    watch.end_leftovers()

import grpo_dist.training.common.process
grpo_dist.training.common.process.LEAVE_SECONDS = 1.0
as_process(work)
"""


def called(name, attempt):
    environ = {**os.environ, ATTEMPT_VARIABLE: str(attempt)}
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, name], env=environ, capture_output=True, text=True, timeout=60
    )
    assert time.monotonic() - began < 40
    return result


@pytest.mark.parametrize(("name", "code"), [("exits", 3), ("crashes", -11), ("sleeps", 1), ("backtracks", 1)])
def test_who_ended_or_held_up_the_process_can_be_told_afterwards(tmp_path, name, code):
    result = called(name, tmp_path)
    assert result.returncode == code
    assert running_rewards(tmp_path).startswith(f"reward 'mine.py:{name}' at step 4, since ")
    if code == 1:
        assert f"in {name}" in result.stderr, "no stack"


def test_a_process_and_a_thread_left_behind_are_told_once_and_ended(tmp_path):
    result = called("starts", tmp_path)
    assert result.returncode == 0
    [warning] = [line for line in result.stdout.splitlines() if "warning" in line]
    assert "reward 'mine.py:starts' at step 4 has left process " in warning
    assert "thread 'forgotten'" in warning
    assert "still running after 1 s: forgotten" in result.stdout
    assert running_rewards(tmp_path) == ""


def test_standard_output_is_the_runs_own_again(tmp_path):
    assert "paid [1.0]" in called("prints", tmp_path).stdout


def test_an_exit_with_code_0_is_an_error(tmp_path):
    result = called("leaves", tmp_path)
    assert result.returncode == 1
    assert f"{ERROR_MARK}reward 'mine.py:leaves' raised SystemExit: 0 at step 4" in result.stdout
