"""Processes that shard a tiny model for real, on the CPU; each writes the bytes it holds to DIRECTORY/KIND-RANK.json.

python sharded_process.py PROCESSES DIRECTORY KIND…

They are forked from one process that has imported what all of them need.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from ranks import in_ranks
from tiny_models import Case, build

CASE = Case(lora=None, num_hidden_layers=3)
IDS = torch.arange(48).reshape(2, 24) % 60 + 3


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def size(tensors: Any) -> int:
    """Bytes of this process's part, scalars left out."""
    return sum(local(tensor).nbytes for tensor in tensors if torch.is_tensor(tensor) and tensor.dim() > 0)


def states(optimizer: torch.optim.Optimizer) -> int:
    return size(value for state in optimizer.state.values() for value in state.values())


def zero(stage: int) -> dict[str, int]:
    import deepspeed

    from grpo_dist.training.common.world import keep_to_gloo

    keep_to_gloo()
    model, _ = build(CASE)
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": stage, "reduce_bucket_size": CASE.hidden_size**2},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, wrapped, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.backward(engine(input_ids=IDS, labels=IDS).loss)
    engine.step()
    sharded = stage == 3
    masters = wrapped.fp32_partitioned_groups_flat if sharded else wrapped.single_partition_of_fp32_groups
    weights = (p.ds_tensor if sharded else p.data for p in model.parameters())
    return {"weights": size(weights), "master weights": size(masters), "optimizer states": states(wrapped.optimizer)}


def fsdp2() -> dict[str, int]:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model, _ = build(CASE)
    model = model.float()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    for layer in model.model.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(input_ids=IDS, labels=IDS).loss.backward()
    gradients = size(parameter.grad for parameter in model.parameters())
    optimizer.step()
    return {"weights": size(model.parameters()), "gradients": gradients, "optimizer states": states(optimizer)}


def report(kind: str, directory: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    held = fsdp2() if kind == "fsdp2" else zero(int(kind.removeprefix("zero")))
    (directory / f"{kind}-{os.environ['RANK']}.json").write_text(json.dumps(held))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    import deepspeed  # noqa: F401

    processes, directory, *kinds = sys.argv[1:]
    for kind in kinds:
        in_ranks(int(processes), lambda kind=kind: report(kind, Path(directory)))
