"""submit, status, logs, cancel and sweep on a real Slurm. Only the stages themselves are stand-ins."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Timer
from typing import Any

import pytest
import yaml
from slurm_jobs import Submit, Together, hold, release, until

pytestmark = pytest.mark.heavy

SECONDS = 120

together = Together()


class Program:
    """Calls grpo-dist in a directory of its own, where the configuration run.yaml lies."""

    def __init__(self, fake: Submit, name: str) -> None:
        self.home, self.runs = fake.home / name, fake.home / name / "runs"
        self.home.mkdir()
        (self.home / "run.yaml").write_text(yaml.safe_dump(fake.base))
        self.env = {**fake.cluster.environment, **fake.environment, "XDG_CONFIG_HOME": str(self.home)}

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "grpo_dist", *arguments]
        done = subprocess.run(words, cwd=self.home, env=self.env, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def status(self, *runs: str) -> list[dict[str, Any]]:
        return json.loads(self("status", *runs, "--json").stdout)


@pytest.fixture(scope="module")
def futures(fakes, request) -> Iterator[dict[str, Future[None]]]:
    with together.begun(fakes, request) as begun:
        yield begun


@together
def a_run_is_submitted_once_followed_and_finished(fake):
    program = Program(fake, "followed")
    job_id = program("submit", "run.yaml").stdout.strip()
    hold(program.runs / "run", 5)
    again = program("submit", "run.yaml", "--resume", code=2).stderr
    assert f"submitted already, as job {job_id}" in again
    Timer(5, release, [program.runs / "run"]).start()  # when somebody follows
    followed = program("logs", "runs/run", "--follow")
    assert "train.log <==" in followed.stderr
    (ended,) = program.status()
    assert (ended["state"], ended["job_id"], ended["step"]) == ("finished", job_id, 12)
    assert (program.runs / "run" / f"slurm-{job_id}.out").exists()
    assert "has ended" in program("submit", "run.yaml", "--resume", code=2).stderr


@together
def a_cancelled_run_is_continued(fake):
    program = Program(fake, "cancelled")
    job_id = program("submit", "run.yaml").stdout.strip()
    hold(program.runs / "run", 5)
    until(lambda: program.status()[0]["step"] == 4, SECONDS, lambda: "no step")
    (running,) = program.status()
    assert (running["state"], running["queue_state"]) == ("running", "RUNNING")
    assert program("cancel", "runs/run").stdout.strip() == job_id
    release(program.runs / "run")
    program("logs", "runs/run", "--follow")
    assert program.status()[0]["state"] in ("stopped", "failed")
    program("submit", "run.yaml", "--resume")
    program("logs", "runs/run", "--follow")
    (ended,) = program.status()
    assert (ended["state"], ended["step"], ended["attempts"]) == ("finished", 12, 2)


@together
def slurm_s_refusal_and_ours_are_told(fake):
    program = Program(fake, "refused")
    told = program("submit", "run.yaml", "--set", "cluster.partition=nonesuch", code=1).stderr
    assert "invalid partition specified: nonesuch" in told and "--set cluster.partition=" in told
    assert not program.runs.exists()
    assert "to start at" in program("submit", "run.yaml", "--test-only").stdout
    assert "node" in program("submit", "run.yaml", "--nodes", "24", "--test-only", code=1).stderr


@together
def a_sweep_is_one_array_with_a_run_each_and_compared_at_its_end(fake):
    program = Program(fake, "swept")
    submitted = program("sweep", "run.yaml", "--nodes", "1", "--set", "grpo.seed=1,2,3", "--throttle", "2")
    job_id, sweep = submitted.stdout.strip(), program.runs / "run-sweep"
    first, _, third = sorted(path for path in sweep.iterdir() if path.is_dir())
    hold(first, 5)
    assert program("cancel", str(third)).stdout.strip() == f"{job_id}_2"  # waits for one of the others to end
    until(lambda: program.status(str(first))[0]["step"] == 4, SECONDS, lambda: "no step")
    fake.cluster.slurm("scancel", "--batch", "--signal=USR2", f"{job_id}_0")  # saves, and goes back into the queue
    until((first / "stop-request").exists, SECONDS, lambda: "no signal")
    release(first)
    table = sweep / f"compare-{re.search('job ([0-9]+) does it', submitted.stderr)[1]}.out"
    until(lambda: table.exists() and "report.html" in table.read_text(), SECONDS, lambda: "no comparison")
    found = program.status("runs/run-sweep")
    assert [one["job_id"] for one in found] == [f"{job_id}_{task}" for task in range(3)]
    assert [one["state"] for one in found] == ["finished", "finished", "stopped"], found
    assert [one["attempts"] for one in found] == [2, 1, 0]
    assert re.search(r"grpo.seed.*12/12.*12/12.*0/12", table.read_text(), re.DOTALL)
    assert "grpo.seed" in (sweep / "report.html").read_text()
    rows = json.loads(program("report", "runs/run-sweep", "--json").stdout)
    assert [row["settings"] for row in rows] == [{"grpo.seed": seed} for seed in (1, 2, 3)]


@pytest.mark.parametrize("name", together)
def test_of_what_is_submitted_at_the_same_time(futures, name):
    futures[name].result()


def test_nothing_of_it_is_left_on_any_node(futures, cluster):
    for future in futures.values():
        future.exception()
    assert cluster.leaks() == ""
