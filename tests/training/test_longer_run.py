"""A finished run that is made longer ends as one that was started with so many steps."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

SCHEDULE = ("--set", "grpo.lr_scheduler_type=constant_with_warmup", "--set", "grpo.warmup_steps=2")
FEW = ("--set", "data.max_samples=40", "--set", "evaluation.num_problems=8", "--set", "evaluation.num_samples=0")


def test_a_longer_run_has_the_adapter_of_one_never_shorter(program):
    """The first attempt ends by its time; the second has more of it, and more steps."""
    common = (str(program.config), *SCHEDULE, *FEW)
    first = program("run", *common, "--set", "grpo.max_steps=9", "--set", "grpo.max_time=00:01", "--output", "run")
    steps = len(program.metrics("run"))
    assert 0 < steps < 9
    assert f"grpo.max_time is over: training ends after step {steps}" in first.stderr
    before = weights(program.cwd / "run/adapter")
    again = (str(program.cwd / "run/config.yaml"), "--output", "run", "--resume", "--set", "grpo.max_time=null")
    program("run", *again, "--set", "grpo.max_steps=11")
    program("run", *common, "--set", "grpo.max_steps=11", "--output", "straight")

    made = [weights(program.cwd / run / "adapter") for run in ("run", "straight")]
    assert made[0] == made[1] != before
    assert [line["step"] for line in program.metrics("run")] == list(range(1, 12))
    assert program.metrics("run")[-1]["epoch"] > 1, "the order of a second epoch is part of it"
    assert weights(program.cwd / f"run/finished/step-{steps}/adapter") == before
    assert (program.cwd / f"run/finished/step-{steps}/comparison.json").exists()
    assert program.report("run")["steps"] == 11
    assert (program.cwd / "run/comparison.json").exists()

    still = ("--set", "grpo.max_steps=1", "--set", "grpo.learning_rate=0", "--set", "grpo.weight_decay=0")
    program("run", *common, *still, "--set", f"model.adapter={program.cwd / 'straight'}", "--output", "continued")
    assert weights(program.cwd / "continued/adapter") == made[1]
    right = [program.report(run)["trained"]["greedy_accuracy"] for run in ("straight", "continued")]
    assert right[0] == right[1]


def weights(adapter: Path) -> bytes:
    return (adapter / "adapter_model.safetensors").read_bytes()
