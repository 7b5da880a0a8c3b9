"""The adapter on its way out of the training processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("sharded_process.py")


@pytest.mark.heavy
def test_fsdp2_gathers_the_adapter_as_peft_would_have_saved_it(tmp_path):
    """Accelerate has no FSDP2 on CPU; PyTorch's own has."""
    import torch
    from safetensors.torch import load_file

    from grpo_dist.embedded.model import build_untrained

    build_untrained(tmp_path / "model")
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    done = subprocess.run(
        (*launch, str(WORKER), str(tmp_path / "model"), str(tmp_path)),
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_TORCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    whole = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    gathered = load_file(tmp_path / "gathered.safetensors")
    assert whole.keys() == gathered.keys()
    assert all(torch.equal(gathered[name], tensor) for name, tensor in whole.items())
