"""The process that watches a node's supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from leftovers import processes_with

from grpo_dist.procs.shared_memory import LOOK_SECONDS

SCRIPT = """
import asyncio, subprocess, sys
from grpo_dist.supervisor.node import watched

async def supervise():
    shared = open("/dev/shm/" + sys.argv[1], "w")
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print("alive", flush=True)
    await asyncio.sleep(float(sys.argv[2]))
    return 3

sys.exit(watched(supervise, silence=5.0))
"""
pytestmark = pytest.mark.heavy

KILLED = 128 + signal.SIGKILL


@dataclass
class Guarded:
    """A guard, and the mark that everything below it has in its environment."""

    guard: subprocess.Popen[str]
    mark: str

    @classmethod
    def start(cls, seconds: float) -> Guarded:
        """With a supervisor that lives so long, and has a process and a file in /dev/shm."""
        mark = f"guarded-{uuid.uuid4().hex}"
        argv, pipe = [sys.executable, "-c", SCRIPT, mark, str(seconds)], subprocess.PIPE
        guard = subprocess.Popen(argv, env={**os.environ, "MARK": mark}, stdout=pipe, stderr=pipe, text=True)
        guard.stdout.readline()
        return cls(guard, mark)

    def supervisor(self) -> int:
        return int(Path(f"/proc/{self.guard.pid}/task/{self.guard.pid}/children").read_text())

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it said; nothing of it is left."""
        _, told = self.guard.communicate(timeout=60)
        assert processes_with(self.mark) == []
        assert not Path("/dev/shm", self.mark).exists()
        return self.guard.returncode, told


@pytest.mark.parametrize(("signum", "told"), [(signal.SIGSTOP, "is frozen: silent for 5 s"), (signal.SIGKILL, "")])
def test_a_supervisor_that_is_frozen_or_killed_is_ended_with_all_below_it(signum, told):
    guarded = Guarded.start(1000.0)
    time.sleep(2 * LOOK_SECONDS)  # what the killed had in /dev/shm is only known by then
    os.kill(guarded.supervisor(), signum)
    code, said = guarded.ended()
    assert code == KILLED
    assert told in said


def test_what_slurm_sends_to_all_and_a_suspended_job_end_nothing():
    guarded = Guarded.start(6.0)
    both = (guarded.supervisor(), guarded.guard.pid)
    os.kill(guarded.guard.pid, signal.SIGTERM)
    for pid in both:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(5.5)
    for pid in both:
        os.kill(pid, signal.SIGCONT)
    assert guarded.ended() == (3, "")
