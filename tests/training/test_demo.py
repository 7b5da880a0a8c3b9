"""The shipped tiny run learns, from whatever seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import DEMO_SEED
from program import Program

pytestmark = pytest.mark.heavy

CONFIG = Path(__file__).parent.parent.parent / "configs" / "tiny-cpu.yaml"


@pytest.mark.parametrize(("seed", "processes"), [(2**31 - 1, 1), (DEMO_SEED, 2)])
def test_the_tiny_model_learns_to_carry(tmp_path, request, seed, processes):
    program = Program(tmp_path, CONFIG)
    model = request.getfixturevalue("demo_model") if seed == DEMO_SEED else "embedded"
    overrides = (f"grpo.seed={seed}", f"distributed.num_processes={processes}", f"model.name_or_path={model}")
    result = program("run", str(CONFIG), *(word for one in overrides for word in ("--set", one)))
    figures = program.report("runs/tiny-cpu")
    assert figures["problems"] >= 256
    assert figures["base"]["greedy_accuracy"] <= 0.70
    assert figures["trained"]["greedy_accuracy"] >= 0.95
    assert figures["difference"]["low"] > 0
    assert figures["reward"]["last"] > figures["reward"]["first"]
    assert f"trained  {figures['trained']['greedy_accuracy']:.1%}" in result.stdout
