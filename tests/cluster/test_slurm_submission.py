"""submit, status, logs, cancel and sweep on a real Slurm. Only the stages themselves are stand-ins."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest
import yaml
from slurm_jobs import wait_until

pytestmark = pytest.mark.heavy

SECONDS = 120


@pytest.fixture
def program(fake):
    """Calls grpo-dist where the configuration run.yaml lies."""
    (fake.home / "run.yaml").write_text(yaml.safe_dump(fake.base))
    env = {**fake.cluster.environment, **fake.environment, "XDG_CONFIG_HOME": str(fake.home)}

    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "grpo_dist", *arguments]
        done = subprocess.run(words, cwd=fake.home, env=env, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call


def status(program, *runs: str) -> list[dict]:
    return json.loads(program("status", *runs, "--json").stdout)


def test_a_run_is_submitted_once_followed_and_finished(program, fake):
    job_id = program("submit", "run.yaml").stdout.strip()
    again = program("submit", "run.yaml", "--resume", code=2).stderr
    assert f"submitted already, as job {job_id}" in again
    followed = program("logs", "runs/run", "--follow")
    assert "train.log <==" in followed.stderr
    (ended,) = status(program)
    assert (ended["state"], ended["job_id"], ended["step"]) == ("finished", job_id, 12)
    assert (fake.home / "runs" / "run" / f"slurm-{job_id}.out").exists()
    assert "has ended" in program("submit", "run.yaml", "--resume", code=2).stderr


def test_a_cancelled_run_is_continued(program, fake):
    job_id = program("submit", "run.yaml", "--set", "grpo.max_steps=40").stdout.strip()
    end = time.monotonic() + SECONDS
    while (running := status(program)[0])["step"] < 4:
        assert time.monotonic() < end, running
    assert (running["state"], running["queue_state"]) == ("running", "RUNNING")
    assert program("cancel", "runs/run").stdout.strip() == job_id
    program("logs", "runs/run", "--follow")
    assert status(program)[0]["state"] in ("stopped", "failed")
    program("submit", "run.yaml", "--set", "grpo.max_steps=40", "--resume")
    program("logs", "runs/run", "--follow")
    (ended,) = status(program)
    assert (ended["state"], ended["step"], ended["attempts"]) == ("finished", 40, 2)


def test_slurms_refusal_and_ours(program, fake):
    told = program("submit", "run.yaml", "--set", "cluster.partition=nonesuch", code=1).stderr
    assert "invalid partition specified: nonesuch" in told and "--set cluster.partition=" in told
    assert not (fake.home / "runs").exists()
    assert "to start at" in program("submit", "run.yaml", "--test-only").stdout
    assert "node" in program("submit", "run.yaml", "--nodes", "24", "--test-only", code=1).stderr


def test_a_sweep_is_one_array_with_a_run_each_and_compared_at_its_end(program, fake):
    submitted = program("sweep", "run.yaml", "--nodes", "1", "--set", "grpo.seed=1,2,3", "--throttle", "2")
    job_id, sweep = submitted.stdout.strip(), fake.home / "runs" / "run-sweep"
    first, _, third = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert program("cancel", str(third)).stdout.strip() == f"{job_id}_2"  # waits for one of the others to end
    wait_until(lambda: status(program, str(first))[0]["step"] >= 3, SECONDS, lambda: "no step")
    fake.cluster.slurm("scancel", "--batch", "--signal=USR2", f"{job_id}_0")  # saves, and goes back into the queue
    table = sweep / f"compare-{re.search('job ([0-9]+) does it', submitted.stderr)[1]}.out"
    wait_until(lambda: table.exists() and "report.html" in table.read_text(), SECONDS, lambda: "no comparison")
    found = status(program, "runs/run-sweep")
    assert [one["job_id"] for one in found] == [f"{job_id}_{task}" for task in range(3)]
    assert [one["state"] for one in found] == ["finished", "finished", "stopped"], found
    assert [one["attempts"] for one in found] == [2, 1, 0]
    assert re.search(r"grpo.seed.*12/12.*12/12.*0/12", table.read_text(), re.DOTALL)
    assert "grpo.seed" in (sweep / "report.html").read_text()
    rows = json.loads(program("report", "runs/run-sweep", "--json").stdout)
    assert [row["settings"] for row in rows] == [{"grpo.seed": seed} for seed in (1, 2, 3)]
