"""The way the product is mostly used, whole: a Slurm job on three nodes, two that train and one that serves."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from slurm_jobs import HOME, ROOT, Submit

pytestmark = pytest.mark.heavy

SECONDS = 500


def test_a_job_with_a_rollout_node_learns_from_groups_that_span_the_nodes(cluster, tmp_path):
    """A group of 128 is twice a node's share; nothing is started by hand but sbatch."""
    home = tmp_path / HOME
    home.mkdir()
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    submit = Submit(cluster, home, {}, environment)
    overrides = (
        *("rollout.backend=vllm", "rollout.mode=server", "rollout.nodes=1", "rollout.replicas=1"),
        *("grpo.prompts_per_step=1", "grpo.num_generations=128", "grpo.max_steps=80"),
    )
    arguments = (str(ROOT / "configs" / "tiny-cpu.yaml"), *(word for one in overrides for word in ("--set", one)))
    options = ("--nodes=3", "--gpus-per-node=0", "--cpus-per-task=1", "--time=30")
    job = submit.again(
        home, *options, script=ROOT / "slurm" / "grpo.sh", arguments=(*arguments, "--output", str(home / "run"))
    )
    job.run = home / "run"
    job.wait(seconds=SECONDS)
    assert (job.state, job.code) == ("COMPLETED", 0), job.text()

    figures = json.loads(submit.program("report", job.run, "--json").stdout)
    assert (figures["world_size"], figures["distributed_type"]) == (2, "MULTI_CPU")
    assert figures["base"]["greedy_accuracy"] <= 0.70
    assert figures["trained"]["greedy_accuracy"] >= 0.95
    assert figures["difference"]["low"] > 0
    lines = [json.loads(line) for line in (job.run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["sampling/sampling_logp_difference/mean"] for line in lines) < 1e-4
    assert [line["perf/policy_version"] for line in lines] == list(range(80))
    assert not list((job.run / "replicas").glob("*.json"))
    assert cluster.leaks() == ""
