"""The shipped tiny run learns, from whatever seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import Program

pytestmark = pytest.mark.heavy

CONFIG = Path(__file__).parent.parent.parent / "configs" / "tiny-cpu.yaml"


def test_the_tiny_model_learns_to_carry(tmp_path):
    """In one process; two that learn are in tests/slurm/test_slurm_vllm.py."""
    program = Program(tmp_path, CONFIG)
    result = program("run", str(CONFIG), "--set", f"grpo.seed={2**31 - 1}")
    figures = program.report("runs/tiny-cpu")
    assert figures["problems"] >= 256
    assert figures["base"]["greedy_accuracy"] <= 0.70
    assert figures["trained"]["greedy_accuracy"] >= 0.95
    assert figures["difference"]["low"] > 0
    assert figures["reward"]["last"] > figures["reward"]["first"]
    assert f"trained  {figures['trained']['greedy_accuracy']:.1%}" in result.stdout
