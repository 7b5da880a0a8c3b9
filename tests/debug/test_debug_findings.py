"""What a debug run tells of the cluster's, from what its stages left; and what this machine has for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.debug import run
from grpo_dist.debug.run import this_machine
from grpo_dist.errors import ModelError
from grpo_dist.plan import plan_run
from grpo_dist.plan.debug import Debug, DebugMachine, scaled_down

GIB = 2**30
H100 = DebugMachine("NVIDIA H100 80GB HBM3", int(79.1 * GIB))
STEP = {"step": 1, "loss": 0.1, "grad_norm": 0.2, "completions/clipped_ratio": 0.0, "frac_reward_zero_std": 0.0}
LONGEST = {"completions": 8, "completion_tokens": 256.0, "prompt_tokens": 900, "peak_bytes": None}


def stated(tokens: int = 2048) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"name_or_path": "Qwen/Qwen3-4B-Base"},
            "data": {"name_or_path": "somewhere/problems", "max_prompt_length": 1024},
            "grpo": {"prompts_per_step": 16, "max_completion_length": tokens},
            "cluster": {"nodes": 2, "gpus_per_node": 8},
        }
    )


def debugged(config: RunConfig, on: DebugMachine = H100) -> Debug:
    return scaled_down(config, on, "/runs/x-debug/model")


def of_steps(*, tokens: int = 2048, on: DebugMachine = H100, **changed: Any) -> dict[str, tuple[str, str, str | None]]:
    config = stated(tokens)
    found = run.step_findings(config, debugged(config, on), [{**STEP, **changed}])
    return {finding.name: (finding.status, finding.what, finding.hint) for finding in found}


def test_steps_in_which_nothing_is_wrong():
    assert {status for status, _, _ in of_steps().values()} == {"ok"}
    assert list(run.step_findings(stated(), debugged(stated()), [])) == []


def test_completions_that_are_cut():
    status, what, hint = of_steps(**{"completions/clipped_ratio": 0.5})["truncation"]
    assert (status, "whether 2,048 are enough" in what) == ("warning", True)
    assert "rewards.preflight_samples" in hint
    _, what, hint = of_steps(tokens=200, **{"completions/clipped_ratio": 0.5})["truncation"]
    assert what.startswith("50% of completions are cut at 200 tokens")
    assert hint == "--set grpo.max_completion_length=400"


def test_groups_that_teach_nothing_and_a_loss_that_is_no_number():
    status, _, hint = of_steps(frac_reward_zero_std=0.9)["zero-variance"]
    assert (status, "grpo-dist filter" in hint) == ("warning", True)
    assert of_steps(loss=None)["loss"][0] == "error"


def test_random_weights_tell_nothing_of_what_the_model_writes():
    found = of_steps(on=DebugMachine(None, 24 * GIB), **{"completions/clipped_ratio": 1.0})
    for name in ("truncation", "zero-variance"):
        status, what, hint = found[name]
        assert (status, what.startswith("not known")) == ("warning", True)
        assert hint


@pytest.mark.parametrize(("peak", "status", "told"), [(9, "ok", "peak 9.0 GiB, planned"), (60, "warning", "more than")])
def test_the_peak_of_memory_is_held_against_the_plan(peak, status, told):
    config = stated()
    (found,) = run.longest_batch_findings(debugged(config), plan_run(config), {**LONGEST, "peak_bytes": peak * GIB})
    assert (found.status, told in found.what) == (status, True)
    assert (found.hint is None) == (status == "ok")


def test_a_cpu_says_that_it_cannot_tell_and_what_the_plan_counts():
    config = stated()
    made = debugged(config, DebugMachine(None, 24 * GIB))
    (found,) = run.longest_batch_findings(made, plan_run(config), LONGEST)
    assert found.status == "ok"
    assert "a CPU does not show" in found.what
    assert "of 79.1 GiB for a trainer" in found.what


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(run, "seen_by_torch", lambda _: {"gpus": [], "bfloat16": None})


def environ(home) -> dict[str, str]:
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": ""}


def test_a_model_of_which_only_the_tokenizer_is_there_can_be_debugged(tmp_path, no_gpu):
    with pytest.raises(ModelError, match="neither Qwen/Qwen3-4B-Base nor its tokenizer") as refused:
        this_machine(stated(), environ(tmp_path))
    assert "hf download Qwen/Qwen3-4B-Base config.json tokenizer.json" in refused.value.hint

    repository = tmp_path / "hub" / "models--Qwen--Qwen3-4B-Base"
    snapshot = repository / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    shape = {"model_type": "qwen3", "hidden_size": 2560}
    (snapshot / "config.json").write_text(json.dumps(shape))
    (snapshot / "tokenizer.json").write_text("{}")
    found = this_machine(stated(), environ(tmp_path))
    assert found.gpu is None
    assert found.memory > GIB
    assert "HF_HUB_OFFLINE is set" in found.lacks_model
    (snapshot / "model.safetensors").write_text("")
    assert this_machine(stated(), environ(tmp_path)).lacks_model is None


def test_the_first_gpu_is_what_there_is(monkeypatch):
    gpu = {"name": "NVIDIA A10", "free": 20 * GIB, "total": 22 * GIB}
    monkeypatch.setattr(run, "seen_by_torch", lambda _: {"gpus": [gpu, gpu], "bfloat16": True})
    embedded = {"name_or_path": "embedded"}
    found = this_machine(RunConfig.model_validate({"model": embedded, "data": embedded}), {})
    assert (found.gpu, found.memory, found.bfloat16, found.lacks_model) == ("NVIDIA A10", 22 * GIB, True, None)
