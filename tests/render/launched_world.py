"""Run under `accelerate launch`: some optimizer steps of a two-layer model, and what the world was.

Each process writes `world-RANK.json` into the directory given.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from torch.utils.data import DataLoader

from grpo_dist.training.common.world import keep_to_gloo


def main(directory: Path, batch_size: int) -> None:
    # As TRL's use_cpu does it. Accelerator(cpu=True) would leave DeepSpeed out without a word, and without either each
    # process would take itself for the only one.
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        keep_to_gloo()
    PartialState(cpu=True)
    accelerator = Accelerator()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    rows = torch.arange(64 * 8, dtype=torch.float32).reshape(64, 8) / 512
    model, optimizer, batches = accelerator.prepare(model, optimizer, DataLoader(rows, batch_size=batch_size))
    losses = []
    for rows in batches:
        loss = model(rows).square().mean()
        losses.append(loss.item())
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    plugin = accelerator.state.deepspeed_plugin if accelerator.distributed_type == "DEEPSPEED" else None
    world = {
        "num_processes": accelerator.num_processes,
        "distributed_type": accelerator.distributed_type.value,
        "device": accelerator.device.type,
        "zero_stage": plugin and plugin.zero_stage,
        "losses": losses,
    }
    (directory / f"world-{accelerator.process_index}.json").write_text(json.dumps(world))
    accelerator.wait_for_everyone()  # one that leaves early fails what the other still has under way
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
