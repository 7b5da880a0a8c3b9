"""Unsloth's CPU backend does the run that TRL's does: warm start, steps, checkpoints, adapter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from grpo_dist.config import RunConfig, load_config
from grpo_dist.plan import plan_run
from grpo_dist.render import render_files
from grpo_dist.run.directory import RunDirectory

pytestmark = pytest.mark.heavy

STAGE = Path(__file__).parent / "fixed_completions.py"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "ACCELERATE_TORCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}

REWARD = """
def checksum(completions, **columns):
    return [float(sum(map(ord, completion[0]["content"])) % 7) for completion in completions]
"""


@dataclass(frozen=True)
class Trained:
    """A run of two steps, the first on given completions, and what its processes printed."""

    run: RunDirectory
    log: str

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run.metrics.read_text().splitlines()]

    def adapter(self, step: int) -> dict:
        return tensors(self.run.checkpoints / f"checkpoint-{step}")

    def arguments(self) -> dict[str, Any]:
        """What the trainer was really given."""
        import torch

        saved = torch.load(self.run.checkpoints / "checkpoint-1" / "training_args.bin", weights_only=False)
        return {name: value for name, value in saved.to_dict().items() if name not in ("output_dir", "run_name")}


def tensors(adapter: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(adapter / "adapter_model.safetensors")


def same(one: dict, other: dict) -> bool:
    """To the last bit."""
    return one.keys() == other.keys() and all(tensor.equal(other[name]) for name, tensor in one.items())


def configured(backend: str, model: Path, rewards: Path, examples: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"name_or_path": str(model), "dtype": "float32", "backend": backend},
            "data": {"name_or_path": "embedded", "system_prompt": "none", "chat_template": "tokenizer"},
            "warm_start": {"data": {"name_or_path": str(examples)}, "max_steps": 2},
            "rewards": {"functions": f"{rewards}:checksum", "allow": ["unparsable-gold"]},
            "grpo": {
                "prompts_per_step": 3,
                "num_generations": 4,
                "max_completion_length": 16,
                "max_steps": 2,
                "save_steps": 1,
                "optim": "sgd",
                "learning_rate": 1.0,
                "lr_scheduler_type": "constant",
                "warmup_steps": 0,
                "weight_decay": 0,
            },
            "distributed": {"max_per_device_train_batch_size": 4},
            "cluster": {"gpus_per_node": 0},
            "evaluation": {"enabled": False},
        }
    )


def execute(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory, request) -> dict[str, Trained]:
    """Prepared by Unsloth, warm start and all; trained from there by either."""
    if find_spec("unsloth") is None:
        request.getfixturevalue("missing")("unsloth is not installed")
    from grpo_dist.embedded.model import build

    where = tmp_path_factory.mktemp("unsloth")
    build(where / "model", 11, lambda _: None, _steps=1)
    (where / "mine.py").write_text(REWARD)
    (where / "examples.jsonl").write_text(
        '{"prompt": "4+3=", "completion": "7"}\n{"prompt": "1+1=", "completion": "2"}\n'
    )
    found = {}
    for backend in ("unsloth", "trl"):
        config = configured(backend, where / "model", where / "mine.py", where / "examples.jsonl")
        run, files, log = RunDirectory(where / backend), render_files(config, plan_run(config)), ""
        if backend == "unsloth":
            run.create(files)
            log = execute("-m", "grpo_dist.training", "prepare", str(run.path))
            shutil.copytree(run.path, where / "trl")
        else:
            run.config.write_text(files["config.yaml"])
            run.environment.unlink()
        log += execute(str(STAGE), "train", str(run.path))
        found[backend] = Trained(run, log)
    return found


def test_it_is_unsloth_that_trains(trained):
    assert "no GPU found, training on CPU" in trained["unsloth"].log
    assert "Unsloth" not in trained["trl"].log
    noted = json.loads(trained["unsloth"].run.environment.read_text())
    assert noted["backend"] == {"name": "unsloth", "reason": "model.backend is unsloth"}
    assert "backend: Unsloth (model.backend is unsloth)" in trained["unsloth"].log


def test_the_arguments_are_those_of_trl(trained):
    assert trained["unsloth"].arguments() == trained["trl"].arguments()


def test_prompts_completions_and_rewards_are_the_same(trained):
    from datasets import Dataset

    first = []
    for one in trained.values():
        [table] = one.run.path.glob("completions/*00001.parquet")
        rows = Dataset.from_parquet(str(table), keep_in_memory=True)
        first.append({name: rows[name][:] for name in ("prompt", "completion", "checksum", "advantage")})
    assert first[0] == first[1]
    assert len(set(first[0]["checksum"])) > 2


def test_loss_and_gradient_are_the_same(trained):
    import torch

    ours, theirs = trained["unsloth"], trained["trl"]
    assert abs(theirs.metrics[0]["loss"]) > 1e-4
    assert ours.metrics[0]["loss"] == pytest.approx(theirs.metrics[0]["loss"], rel=1e-4)
    assert ours.metrics[0]["grad_norm"] == pytest.approx(theirs.metrics[0]["grad_norm"], rel=1e-4)
    after, expected = ours.adapter(1), theirs.adapter(1)
    assert after.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_it_generates_by_itself_and_leaves_an_adapter_that_peft_loads(trained):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = trained["unsloth"].run
    assert [line["step"] for line in trained["unsloth"].metrics] == [1, 2]
    assert trained["unsloth"].metrics[1]["completions/mean_length"] > 0
    base = AutoModelForCausalLM.from_pretrained(run.path.parent / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(run.adapter)).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        trained_logits = model(ids).logits
        with model.disable_adapter():
            base_logits = model(ids).logits
    assert (trained_logits - base_logits).abs().max() > 1e-4
    own = dict(model.named_parameters())
    for name, tensor in trained["unsloth"].adapter(2).items():
        inside = name.replace(".weight", ".default.weight")
        torch.testing.assert_close(own[inside], tensor, msg=name)
    assert run.warm_start.is_dir()


def test_cut_off_it_goes_on_with_unsloth_and_ends_with_the_same_adapter(trained, tmp_path):
    whole = trained["unsloth"].run
    cut_off = RunDirectory(tmp_path / "run")
    shutil.copytree(whole.path, cut_off.path)
    shutil.rmtree(cut_off.adapter)
    shutil.rmtree(cut_off.checkpoints / "checkpoint-2")
    log = execute("-m", "grpo_dist.training", "train", str(cut_off.path))
    assert "resuming after step 1" in log
    assert "no GPU found, training on CPU" in log
    assert same(tensors(cut_off.adapter), tensors(whole.adapter))


def test_the_warm_start_of_filter_is_that_of_the_run(trained, tmp_path):
    run, work = trained["unsloth"].run, RunDirectory(tmp_path / "work")
    config = load_config(run.config)
    work.create(render_files(config, plan_run(config)))
    log = execute("-m", "grpo_dist.training", "filter-prepare", str(work.path))
    assert "backend: Unsloth (model.backend is unsloth)" in log
    assert same(tensors(work.warm_start), tensors(run.warm_start))
