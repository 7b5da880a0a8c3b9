"""`deepspeed.initialize` with each file given, as it stands, and two optimizer steps on CPU; one JSON line each."""

from __future__ import annotations

import json
import os
import sys

os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}

import deepspeed
import torch

from grpo_dist.training.common.world import keep_to_gloo


def steps(file: str) -> dict[str, object]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=file)
    rows = torch.ones(4, 8, dtype=next(engine.module.parameters()).dtype)
    losses = []
    for _ in range(2 * engine.gradient_accumulation_steps()):
        loss = engine(rows).square().mean()
        losses.append(loss.item())
        engine.backward(loss)
        engine.step()
    losses.append(engine(rows).square().mean().item())
    return {"file": file, "steps": engine.global_steps, "losses": losses}


if __name__ == "__main__":
    keep_to_gloo()
    for path in sys.argv[1:]:
        print(json.dumps(steps(path)), flush=True)
