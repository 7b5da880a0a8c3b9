"""`sharded_process.py MODEL DIRECTORY`: an adapter sharded by FSDP2 is gathered whole."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from ranks import in_ranks
from safetensors.torch import save_file
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from grpo_dist.training.models.adapter import gather_adapter


def write(model_path: Path, directory: Path) -> None:
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    # A rank that does not divide over the processes.
    lora = LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32), lora)
    model.save_pretrained(directory / "whole")

    mesh, layers = init_device_mesh("cpu", (dist.get_world_size(),)), model.get_base_model().model.layers
    for number, layer in enumerate(layers):
        layers[number] = fully_shard(checkpoint_wrapper(layer), mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    tensors = gather_adapter(model, accelerator, torch.float32)
    if accelerator.is_main_process:
        save_file(tensors, directory / "gathered.safetensors")
    else:
        assert tensors == {}


if __name__ == "__main__":
    in_ranks(2, lambda: write(*map(Path, sys.argv[1:])))
