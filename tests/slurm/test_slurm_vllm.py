"""The way the product is mostly used, whole: a Slurm job on three nodes, two that train and one that serves.

While it learns, the network is cut and both replicas fail, each in the middle of a generation.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pandas
import pytest
from slurm_jobs import HOME, ROOT, Job, Submit, until

from grpo_dist.inference.registry import ReplicaEntry, read_key, read_replicas
from grpo_dist.inference.server import UNREACHED, Address, status

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]  # four engines start, each in a minute

SECONDS = 900
STEPS, COMPLETIONS = 48, 128
ROLLOUT_NODE = "node3"


def test_a_job_with_a_rollout_node_learns_through_failures(cluster, tmp_path):
    """A group of 128 is twice a node's share; nothing is started by hand but sbatch."""
    job = submitted(cluster, tmp_path / HOME)
    job.wait_for_step(5, SECONDS)
    generating(job, "0")
    cluster.control("unplug", ROLLOUT_NODE)
    time.sleep(5)
    cluster.control("plug", ROLLOUT_NODE)

    job.wait_for_step(10, SECONDS)
    cluster.control("exec", ROLLOUT_NODE, "kill", "-KILL", generating(job, "0").pid)

    job.wait_for_step(30, SECONDS)
    cluster.control("exec", ROLLOUT_NODE, "kill", "-STOP", "--", -generating(job, "1").pid)
    job.wait(seconds=SECONDS)
    assert (job.state, job.code, job.attempts) == ("COMPLETED", 0, 1), job.text()

    kept = (job.run / "logs" / "attempt-1" / "serve-node2.log").read_text()
    for name, again in (("0", "it ended with exit code 137"), ("1", "it has not answered for")):
        assert f"replica {name} is started again: {again}" in kept
        assert f"rollout server {name} failed" in job.text()
    lines = [json.loads(line) for line in (job.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["perf/policy_version"] for line in lines] == list(range(STEPS))
    assert max(line["sampling/sampling_logp_difference/mean"] for line in lines) < 1e-4
    for step in range(1, STEPS + 1):
        table = pandas.read_parquet(job.run / "completions" / f"completions_{step:05d}.parquet")
        assert list(table["policy_version"]) == [step - 1] * COMPLETIONS

    figures = json.loads(Submit(cluster, job.run, {}, {}).program("report", job.run, "--json").stdout)
    assert (figures["world_size"], figures["distributed_type"]) == (2, "MULTI_CPU")
    assert figures["base"]["greedy_accuracy"] <= 0.70
    assert figures["difference"]["low"] > 0, "how far it gets with all its steps is in tests/training/test_demo.py"
    answered_by = json.loads((job.run / "comparison.json").read_text())["answered_by"]
    assert answered_by.keys() <= {"server 0", "server 1"}
    assert sum(answered_by.values()) == 2 * 2 * figures["problems"]
    assert not list((job.run / "replicas").glob("*.json"))
    assert cluster.leaks() == ""


def submitted(cluster, home: Path) -> Job:
    home.mkdir()
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    overrides = (
        *("rollout.backend=vllm", "rollout.mode=server", "rollout.nodes=1", "rollout.replicas=2"),
        *("grpo.prompts_per_step=1", f"grpo.num_generations={COMPLETIONS}", f"grpo.max_steps={STEPS}"),
        "evaluation.num_samples=1",
    )
    arguments = (str(ROOT / "configs" / "tiny-cpu.yaml"), *(word for one in overrides for word in ("--set", one)))
    options = ("--nodes=3", "--gpus-per-node=0", "--cpus-per-task=1", "--time=60")
    job = Submit(cluster, home, {}, environment).again(
        home, *options, script=ROOT / "slurm" / "grpo.sh", arguments=(*arguments, "--output", str(home / "run"))
    )
    job.run = home / "run"
    return job


def generating(job: Job, name: str) -> ReplicaEntry:
    """The replica, when it is in the middle of a generation."""
    found: list[ReplicaEntry] = []

    def is_generating() -> bool:
        found[:] = [one for one in read_replicas(job.run / "replicas") if one.name == name and one.state == "ready"]
        if not found:
            return False
        address = Address(found[0].host, int(found[0].url.rpartition(":")[2]), read_key(job.run / "replicas"))
        try:
            return status(address, 5.0)["in_flight"] > 0
        except UNREACHED:
            return False

    until(is_generating, SECONDS, job.text, pause=0.005)
    return found[0]
