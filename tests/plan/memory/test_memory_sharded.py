"""What two real processes hold under DeepSpeed and FSDP2, against the plan."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sharded_process import CASE
from tiny_models import build

from grpo_dist.plan.memory import Sharding, TrainerSetup, trainer_memory

PROCESSES = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(kind: str, directory: Path) -> list[dict[str, int]]:
    """What each process reported."""
    script = str(Path(__file__).with_name("sharded_process.py"))
    shared = {
        **os.environ,
        "WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }
    started = [
        subprocess.Popen(
            [sys.executable, script, kind, str(directory)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    for process in started:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in range(PROCESSES)]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["zero1", "zero2", "zero3", "fsdp2"])
def test_what_a_process_holds(kind, tmp_path, missing):
    if kind != "fsdp2":
        try:
            import deepspeed  # noqa: F401
        except ImportError:
            missing("deepspeed is not installed")
    _, architecture = build(CASE)
    plan = trainer_memory(TrainerSetup(architecture, 2, 12, 12, sharding=Sharding(kind, PROCESSES)))
    expected = {part.name: part.bytes for part in (*plan.resident, *plan.phases[-1].components)}
    reported = run(kind, tmp_path)
    for name in reported[0]:
        held = [process[name] for process in reported]
        assert max(held) == pytest.approx(expected[name], rel=0.01), (kind, name, held)
