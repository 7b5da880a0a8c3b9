"""Real training on a real Slurm: interrupted or moved to other nodes, it ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import HOME, ROOT, Job, Submit, wait_until
from safetensors.torch import load_file

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def real(cluster, tmp_path_factory):
    """Jobs of six steps; data and model are made once."""
    from grpo_dist.embedded.model import build

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
            "max_steps": 6,
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
    prepare = [sys.executable, "-m", "grpo_dist.training.prepare", str(template)]
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
    """Bit for bit on the same nodes; on fewer the same to rounding, for the sums are taken in another order."""
    whole, cut, moved = real("whole"), real("cut"), real("moved")
    for job in (cut, moved):
        stop_at_its_next_step(job)
    wait_until(lambda: moved.state == "PENDING" or moved.attempts > 1, 120, moved.text)
    moved.cluster.slurm("scancel", moved.number)
    wait_until(lambda: moved.state == "CANCELLED", 60, moved.text)
    moved = real.again(moved.run, "--nodes=1")
    for job in (whole, cut, moved):
        job.wait(seconds=240)
        assert (job.state, job.code) == ("COMPLETED", 0), job.text()
        assert job.steps() == [1, 2, 3, 4, 5, 6], job.text()
    assert (whole.attempts, cut.attempts) == (1, 2)
    assert cut.adapter() == whole.adapter()
    tensors = [load_file(job.run / "adapter" / "adapter_model.safetensors") for job in (whole, moved)]
    apart = max((tensors[0][name] - tensors[1][name]).abs().max().item() for name in tensors[0])
    largest = max(tensor.abs().max().item() for tensor in tensors[0].values())
    assert apart < 1e-3 * largest, f"{apart} of {largest}"
    assert "1 process" in moved.text()
    assert torch.isfinite(torch.tensor(apart))
