"""A finished run that is made longer ends as one that was started with so many steps."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.heavy

SCHEDULE = ("--set", "grpo.lr_scheduler_type=constant_with_warmup", "--set", "grpo.warmup_steps=2")
FEW = ("--set", "data.max_samples=40", "--set", "evaluation.num_problems=8", "--set", "evaluation.num_samples=0")


def test_a_longer_run_has_the_adapter_of_one_never_shorter(program):
    common = (str(program.config), *SCHEDULE, *FEW)
    program("run", *common, "--set", "grpo.max_steps=3", "--output", "run")
    before = (program.cwd / "run/adapter/adapter_model.safetensors").read_bytes()
    again = (str(program.cwd / "run/config.yaml"), "--output", "run", "--resume", "--set", "grpo.max_steps=11")
    program("run", *again)
    program("run", *common, "--set", "grpo.max_steps=11", "--output", "straight")

    made = [(program.cwd / run / "adapter/adapter_model.safetensors").read_bytes() for run in ("run", "straight")]
    assert made[0] == made[1] != before
    assert [line["step"] for line in program.metrics("run")] == list(range(1, 12))
    assert program.metrics("run")[-1]["epoch"] > 1, "the order of a second epoch is part of it"
    assert (program.cwd / "run/finished/step-3/adapter/adapter_model.safetensors").read_bytes() == before
    assert (program.cwd / "run/finished/step-3/comparison.json").exists()
    assert program.report("run")["steps"] == 11
    assert (program.cwd / "run/comparison.json").exists()
