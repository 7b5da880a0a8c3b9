"""What two real processes hold under DeepSpeed and FSDP2, against the plan."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from ranks import run_script
from sharded_process import CASE
from tiny_models import build

from grpo_dist.plan.memory import Sharding, TrainerSetup, trainer_memory

PROCESSES = 2
KINDS = ("fsdp2", "zero1", "zero2", "zero3")


@pytest.fixture(scope="module")
def reported(tmp_path_factory, missing) -> dict[str, list[dict[str, int]]]:
    """Kind → what each process reported."""
    if find_spec("deepspeed") is None:
        missing("deepspeed is not installed")
    directory = tmp_path_factory.mktemp("sharded")
    run_script(Path(__file__).with_name("sharded_process.py"), PROCESSES, directory, *KINDS)
    return {kind: [read(directory / f"{kind}-{rank}.json") for rank in range(PROCESSES)] for kind in KINDS}


def read(path: Path) -> dict[str, int]:
    return json.loads(path.read_text())


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_process_holds(kind, reported):
    _, architecture = build(CASE)
    plan = trainer_memory(TrainerSetup(architecture, 2, 12, 12, sharding=Sharding(kind, PROCESSES)))
    expected = {part.name: part.bytes for part in (*plan.resident, *plan.phases[-1].components)}
    for name in reported[kind][0]:
        held = [process[name] for process in reported[kind]]
        assert max(held) == pytest.approx(expected[name], rel=0.01), (kind, name, held)
