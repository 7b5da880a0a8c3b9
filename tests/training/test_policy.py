"""The adapter on its way out of the training processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ranks import run_script

WORKER = Path(__file__).with_name("sharded_process.py")


@pytest.mark.heavy
def test_fsdp2_gathers_the_adapter_as_peft_would_have_saved_it(tmp_path):
    """Accelerate has no FSDP2 on CPU; PyTorch's own has."""
    import torch
    from safetensors.torch import load_file

    from grpo_dist.embedded.model import build_untrained

    build_untrained(tmp_path / "model")
    run_script(WORKER, tmp_path / "model", tmp_path)
    whole = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    gathered = load_file(tmp_path / "gathered.safetensors")
    assert whole.keys() == gathered.keys()
    assert all(torch.equal(gathered[name], tensor) for name, tensor in whole.items())


@pytest.fixture
def model(tmp_path):
    """A model with an adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from grpo_dist.embedded.model import build_untrained

    build_untrained(tmp_path / "model")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    return get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


@pytest.mark.heavy
def test_no_room_for_an_adapter_is_told_and_leaves_nothing_of_it(model, tmp_path, missing):
    import torch

    from grpo_dist.errors import RolloutError
    from grpo_dist.training.models import adapter

    policies = tmp_path / "policies"
    policies.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(policies)]).returncode:
        missing("mounting a small file system needs root")
    try:
        with pytest.raises(RolloutError, match="cannot be written: No space left on device") as told:
            adapter.write_policy(model, {"lora_A": torch.ones(128, 256)}, 1, policies)
        assert "make room there, then continue with --resume" in told.value.hint
        assert list(policies.iterdir()) == []
    finally:
        subprocess.run(["umount", str(policies)], check=True)


@pytest.mark.heavy
def test_an_adapter_whose_removal_was_cut_off_is_written_anew(model, tmp_path, monkeypatch):
    import torch

    from grpo_dist.training.models import adapter

    tensors = {"lora_A": torch.ones(4, 8)}
    policies = tmp_path / "policies"
    old, new = (adapter.write_policy(model, tensors, step, policies) for step in (2, 3))

    def killed(directory, **_):
        (directory / adapter.WEIGHTS).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(adapter.shutil, "rmtree", killed)
        adapter.discard_others(policies, [new])
    again = adapter.write_policy(model, tensors, 2, policies)
    assert again == old
    assert sorted(file.name for file in again.directory.iterdir()) == ["adapter_config.json", adapter.WEIGHTS]
    adapter.discard_others(policies, [again])
    assert list(policies.iterdir()) == [again.directory]
