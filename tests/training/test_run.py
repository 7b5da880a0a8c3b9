"""Whole runs: what they leave, what they refuse, and that a killed one continues as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from program import TRACKED, Program, make_prepared, processes_in
from safetensors.torch import load_file
from waiting import until

from grpo_dist.run.checkpoints import newest_complete

pytestmark = pytest.mark.heavy

WRITTEN = {
    "config.yaml",
    "plan.json",
    "accelerate.yaml",
    "metrics.jsonl",
    "completions",
    "checkpoints",
    "adapter",
    "comparison.json",
    "report.html",
    "environment.json",
    "logs",
}


def adapter(program: Program, run: str) -> bytes:
    return (program.cwd / run / "adapter" / "adapter_model.safetensors").read_bytes()


def flip(file: Path) -> Path:
    """Change one byte in the middle of a file; returns its directory."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file.parent


def rank(run: Path) -> int:
    """A training process of the run: the last one started."""
    return max(pid for pid in processes_in(run) if b"grpo_dist.training" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_run_leaves_all_it_promises_and_refuses_to_be_overwritten(finished):
    program, result = finished
    run = program.cwd / "run"
    assert {path.name for path in run.iterdir()} >= WRITTEN
    assert [line["step"] for line in program.metrics("run")] == [1, 2, 3, 4, 5, 6]
    assert all(line["perf/tokens_per_second"] > 0 for line in program.metrics("run"))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert "step 6/6 · reward" in result.stderr
    assert "held-out problems correct" in result.stdout
    tensors = load_file(run / "adapter" / "adapter_model.safetensors")
    assert any(tensor.abs().sum() > 0 for name, tensor in tensors.items() if "lora_B" in name)

    figures = program.report("run")
    assert (figures["steps"], figures["world_size"], figures["distributed_type"]) == (6, 1, "NO")
    assert figures["backend"] == "transformers"
    assert 0 <= figures["base"]["greedy_accuracy"] <= 1
    assert figures["trained"]["pass_at_k"] is not None

    before = adapter(program, "run")
    again = ("run", str(program.config), *TRACKED, "--output", "run")
    refused = program(*again, code=2)
    assert "there is a run already" in refused.stderr
    assert "--resume" in refused.stderr
    other = program(*again, "--resume", "--set", "grpo.learning_rate=2e-3", code=2)
    assert "grpo.learning_rate: 0.001 in the run, 0.002 now" in other.stderr
    program(*again, "--resume")
    assert adapter(program, "run") == before
    assert sorted(path.name for path in (run / "logs").iterdir()) == ["attempt-1"]


def test_a_killed_run_ends_with_the_adapter_of_one_never_killed(program, finished):
    """With two processes; one that ends by itself and goes on is below."""
    overrides = ("distributed.num_processes=2", "evaluation.enabled=false")

    def resumed(name: str) -> tuple[str, ...]:
        settings = (word for one in overrides for word in ("--set", one))
        make_prepared(program.cwd / name, program.config, *overrides, by=finished[0].cwd / "run")
        return ("run", str(program.config), *settings, "--output", name, "--resume")

    program(*resumed("whole"))
    arguments = resumed("killed")
    run = program.cwd / "killed"
    for steps, victim in ((3, "launcher"), (5, "rank")):
        process = program.start(*arguments)
        until(lambda steps=steps: len(program.metrics("killed")) >= steps, 240)
        os.kill(process.pid if victim == "launcher" else rank(run), signal.SIGKILL)
        assert process.wait(60) != 0
        until(lambda: not processes_in(run))
        assert not (run / "adapter").exists()
    damaged = flip(newest_complete(run / "checkpoints") / "adapter_model.safetensors")
    assert f"{damaged} is damaged (adapter_model.safetensors: not what was saved)" in program(*arguments).stderr

    assert adapter(program, "killed") == adapter(program, "whole")
    assert [line["reward"] for line in program.metrics("killed")] == [
        line["reward"] for line in program.metrics("whole")
    ]
    assert program.metrics("killed")[-1]["num_tokens"] == program.metrics("whole")[-1]["num_tokens"]
    figures = program.report("killed")
    assert (figures["world_size"], figures["distributed_type"]) == (2, "MULTI_CPU")
    assert len(list((run / "logs").iterdir())) == 3


def test_interrupted_by_the_keyboard_it_stops_clean_and_says_how_to_go_on(program, finished):
    make_prepared(program.cwd / "stopped", program.config, by=finished[0].cwd / "run")
    process = program.start("run", str(program.config), "--output", "stopped", "--resume")
    until(lambda: len(program.metrics("stopped")) >= 1, 240)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    assert not processes_in(program.cwd / "stopped")


def test_asked_for_a_checkpoint_it_saves_stops_and_can_go_on(program, finished):
    arguments = ("run", str(program.config), "--output", "asked", "--set", "evaluation.enabled=false", "--resume")
    make_prepared(program.cwd / "asked", program.config, "evaluation.enabled=false", by=finished[0].cwd / "run")
    process = program.start(*arguments)
    until(lambda: len(program.metrics("asked")) >= 3, 240)
    program("checkpoint", "asked")
    assert process.wait(60) == 75
    steps = len(program.metrics("asked"))
    assert (program.cwd / "asked" / "checkpoints" / f"checkpoint-{steps}" / "complete.json").exists()
    assert "no run is going on" in program("checkpoint", "asked", code=2).stderr
    program(*arguments)
    assert [line["step"] for line in program.metrics("asked")] == [1, 2, 3, 4, 5, 6]
    assert adapter(program, "asked") == adapter(finished[0], "run")


def test_one_process_where_two_were_planned_is_an_error_not_a_slower_run(program):
    process = program.start("run", str(program.config), "--set", "distributed.num_processes=2", "--output", "fallen")
    accelerate = program.cwd / "fallen" / "accelerate.yaml"
    until(accelerate.exists, 240)
    accelerate.write_text(accelerate.read_text().replace("MULTI_GPU", "MULTI_CPU"))
    assert process.wait(300) == 1
    log = (program.cwd / "fallen" / "logs" / "attempt-1" / "train.log").read_text()
    assert "world size is 1, planned 2; distributed type is 'NO', planned 'MULTI_CPU'" in log


def test_a_reward_that_raises_names_itself_the_completion_and_the_step(program):
    (program.cwd / "mine.py").write_text(
        "def fussy(completions, **columns):\n"
        "    return [1 / (0 if '8' in c[0]['content'] else 1) for c in completions]\n"
    )
    settings = ("--set", "rewards.functions=[mine.py:fussy]")
    refused = program("run", str(program.config), *settings, "--output", "refused", code=1)
    assert "reward-fails: reward '" in refused.stderr
    assert not (program.cwd / "refused" / "checkpoints").exists()
    allowed = "rewards.allow=[reward-fails,gold-below-wrong,gold-like-wrong]"
    result = program("run", str(program.config), *settings, "--set", allowed, code=1)
    assert "fussy" in result.stderr
    assert "step 0" in result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert "--resume" in result.stderr


def test_a_plan_for_a_gpu_does_not_fall_to_the_cpu(program):
    result = program("run", str(program.config), "--set", "cluster.gpus_per_node=1", code=1)
    assert "PyTorch sees no GPU on this machine" in result.stderr
    assert "--set cluster.gpus_per_node=0" in result.stderr


@pytest.mark.heavy
def test_all_processes_of_a_run_compare(program):
    overrides = ("distributed.num_processes=2", "grpo.max_steps=1", "grpo.save_steps=1", "evaluation.num_problems=7")
    settings = [part for override in overrides for part in ("--set", override)]
    program("run", str(program.config), *settings, "--output", "shared")
    run = program.cwd / "shared"
    compared = json.loads((run / "comparison.json").read_text())
    assert len(compared["per_problem"]) == 7
    each = 2 * (1 + compared["k"])
    assert compared["answered_by"] == {"process 0": 4 * each, "process 1": 3 * each}
    assert not (run / ".comparison").exists()
