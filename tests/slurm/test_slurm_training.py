"""Real training on a real Slurm: interrupted or moved to other nodes, it ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas
import pytest
import torch
from slurm_jobs import HOME, ROOT, Job, Submit, until

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def real(cluster, tmp_path_factory):
    """Jobs of eight steps; data and model are made once."""
    from grpo_dist.embedded.base_cache import build

    home = tmp_path_factory.mktemp("real") / HOME
    home.mkdir()
    build(home / "model", 11, lambda _: None, _steps=60)
    base = {
        "model": {"name_or_path": str(home / "model"), "dtype": "float32"},
        "data": {"name_or_path": "embedded", "system_prompt": "none", "chat_template": "tokenizer"},
        "grpo": {
            "prompts_per_step": 4,
            "num_generations": 4,
            "max_completion_length": 32,
            "max_steps": 8,
            "save_steps": 4,
            "learning_rate": 1e-3,
            "gradient_checkpointing": False,
        },
        "cluster": {"nodes": 2, "gpus_per_node": 0, "cpus_per_gpu": 1},
        "evaluation": {"enabled": False},
    }
    binaries = Path(sys.executable).parent
    environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    submit = Submit(cluster, home, base, environment)
    template = submit.render("template")
    prepare = [sys.executable, "-m", "grpo_dist.training", "prepare", str(template)]
    env = {**os.environ, **environment, "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_TORCH_DEVICE": "cpu"}
    subprocess.run(prepare, env=env, check=True, capture_output=True, timeout=240)

    def job(name: str) -> Job:
        shutil.copytree(template, home / name)
        return submit.again(home / name)

    job.again = submit.again
    return job


def stop_at_its_next_step(job: Job) -> None:
    job.wait_for_step(2)
    job.cluster.slurm("scancel", "--batch", "--signal=USR2", job.number)


def test_interrupted_it_ends_with_the_adapter_of_a_run_that_was_not(real):
    """Bit for bit on the same nodes. On fewer, other processes draw other completions for the same prompts."""
    whole, cut, moved = real("whole"), real("cut"), real("moved")
    with ThreadPoolExecutor() as pool:
        list(pool.map(stop_at_its_next_step, (cut, moved)))
    until(lambda: moved.state == "PENDING" or moved.attempts > 1, 120, moved.text)
    moved.cluster.slurm("scancel", moved.number)
    until(lambda: moved.state == "CANCELLED", 60, moved.text)
    moved = real.again(moved.run, "--nodes=1")
    for job in (whole, cut, moved):
        job.wait(seconds=240)
        assert (job.state, job.code) == ("COMPLETED", 0), job.text()
        assert job.steps() == list(range(1, 9)), job.text()
    assert (whole.attempts, cut.attempts) == (1, 2)
    assert cut.adapter() == whole.adapter()
    assert "one process" in moved.text()
    for step in (6, 7, 8):
        assert prompts(moved, step) == prompts(whole, step), "another order of the data"
    assert {state["step"] for state in adam(moved)} == {8.0}, "the optimizer was not continued"


def prompts(job: Job, step: int) -> list[str]:
    table = pandas.read_parquet(job.run / "completions" / f"completions_{step:05d}.parquet")
    return sorted(messages[-1]["content"] for messages in table["prompt"])


def adam(job: Job) -> list[dict[str, float]]:
    saved = torch.load(job.run / "checkpoints" / "checkpoint-8" / "optimizer.pt", weights_only=True)
    return [{"step": float(state["step"])} for state in saved["state"].values()]
