"""The mathematics of a step does not depend on how many processes take it, nor on how they share the model."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.launch.forks import Forks
from grpo_dist.launch.process import run_process
from grpo_dist.plan import BatchPlan, plan_run
from grpo_dist.progress import Terminal
from grpo_dist.render import render_files
from grpo_dist.render.accelerate import launch_arguments
from grpo_dist.run.directory import RunDirectory

pytestmark = pytest.mark.heavy

STAGE = Path(__file__).parent / "fixed_completions.py"
LEARNING_RATE = 1.0
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "ACCELERATE_TORCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}

REWARD = """
def checksum(completions, **columns):
    return [float(sum(map(ord, completion[0]["content"])) % 7) for completion in completions]
"""


@dataclass(frozen=True)
class Step:
    """One optimizer step, from the same adapter with the same completions."""

    batch: BatchPlan
    loss: float
    grad_norm: float
    gradient: dict
    """Adapter tensor → its (clipped) gradient: with SGD at LEARNING_RATE 1 what the step subtracts."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The embedded model, hardly trained: gradients are all that is wanted of it."""
    from grpo_dist.embedded.model import build

    path = tmp_path_factory.mktemp("untrained") / "model"
    build(path, 11, lambda _: None, _steps=1)
    return path


@pytest.fixture(scope="module")
def configured(model, tmp_path_factory) -> Callable[[int, str], RunConfig]:
    rewards = tmp_path_factory.mktemp("rewards") / "mine.py"
    rewards.write_text(REWARD)

    def config(processes: int, strategy: str) -> RunConfig:
        # 24 completions in groups of 8: with 2 and 4 processes a group spans processes, with any several micro-batches.
        return RunConfig.model_validate(
            {
                "model": {"name_or_path": str(model), "dtype": "float32"},
                "data": {"name_or_path": "embedded", "system_prompt": "none", "chat_template": "tokenizer"},
                "rewards": {"functions": f"{rewards}:checksum", "allow": ["unparsable-gold"]},
                "grpo": {
                    "prompts_per_step": 3,
                    "num_generations": 8,
                    "max_completion_length": 24,
                    "max_steps": 1,
                    "save_steps": 1,
                    "optim": "sgd",
                    "learning_rate": LEARNING_RATE,
                    "lr_scheduler_type": "constant",
                    "warmup_steps": 0,
                    "weight_decay": 0,
                    "gradient_checkpointing": False,
                },
                "distributed": {
                    "num_processes": processes,
                    "strategy": strategy,
                    "max_per_device_train_batch_size": 4,
                },
                "cluster": {"gpus_per_node": 0},
                "evaluation": {"enabled": False},
            }
        )

    return config


@pytest.fixture(scope="module")
def unprepared(configured, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "run"
    config = configured(1, "ddp")
    RunDirectory(path).create(render_files(config, plan_run(config)))
    return path


@pytest.fixture(scope="module")
def execute(unprepared) -> Iterator[Callable[..., None]]:
    """Runs a command to its end; what the commands import is imported once."""
    log, env = unprepared.with_name("log"), {**os.environ, **ENVIRONMENT}
    with Forks(unprepared, env) as forks:

        def run(*command: str) -> None:
            outcome = run_process(command, env=env, log=log, terminal=Terminal(StringIO()), start=forks.start)
            assert outcome.code == 0, log.read_text()

        yield run


@pytest.fixture(scope="module")
def prepared(model, unprepared, execute) -> Path:
    """A run directory up to the training stage, with an adapter whose every tensor gets a gradient."""
    execute(sys.executable, "-m", "grpo_dist.training", "prepare", str(unprepared))
    random_adapter(model, RunDirectory(unprepared).warm_start)
    return unprepared


@pytest.fixture(scope="module")
def step(prepared, configured, execute, tmp_path_factory) -> Callable[[int, str], Step]:
    def take(processes: int, strategy: str) -> Step:
        config = configured(processes, strategy)
        plan = plan_run(config)
        run = RunDirectory(tmp_path_factory.mktemp(f"{strategy}-{processes}") / "run")
        shutil.copytree(prepared, run.path)
        for name, text in render_files(config, plan).items():
            (run.path / name).write_text(text)
        launch = (sys.executable, "-m", "accelerate.commands.launch", *launch_arguments(plan, str(run.path)))
        execute(
            *launch, str(STAGE), "train", str(run.path)
        )  # training holds the world it finds itself in against the plan
        [line] = run.metrics.read_text().splitlines()
        logged = json.loads(line)
        return Step(plan.batch, logged["loss"], logged["grad_norm"], subtracted(run))

    return take


@pytest.fixture(scope="module")
def alone(step) -> Step:
    return step(1, "ddp")


def random_adapter(model: Path, directory: Path) -> None:
    """A fresh adapter's B is zero, and with it the gradient of A."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    lora = LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), lora).save_pretrained(directory)


def subtracted(run: RunDirectory) -> dict:
    from safetensors.torch import load_file

    before, after = (load_file(where / "adapter_model.safetensors") for where in (run.warm_start, run.adapter))
    assert before.keys() == after.keys()
    return {name: (before[name] - after[name]) / LEARNING_RATE for name in before}


def test_the_step_of_one_process_moves_every_tensor(alone):
    assert (alone.batch.per_device_train_batch_size, alone.batch.gradient_accumulation_steps) == (4, 6)
    assert abs(alone.loss) > 1e-3
    assert all(gradient.abs().max() > 1e-6 for gradient in alone.gradient.values())
    norm = sum(gradient.square().sum().item() for gradient in alone.gradient.values()) ** 0.5
    assert norm == pytest.approx(min(alone.grad_norm, 1.0), rel=1e-4)


@pytest.mark.parametrize(
    ("processes", "strategy", "micro_batches"),
    [(2, "ddp", (4, 3)), (4, "ddp", (3, 2)), (2, "zero2", (4, 3)), (2, "zero3", (4, 3))],
)
def test_loss_and_gradient_are_those_of_one_process(alone, step, missing, processes, strategy, micro_batches):
    if strategy.startswith("zero") and find_spec("deepspeed") is None:
        missing("deepspeed is not installed")
    import torch

    shared = step(processes, strategy)
    assert shared.batch.num_processes == processes
    assert (shared.batch.per_device_train_batch_size, shared.batch.gradient_accumulation_steps) == micro_batches
    assert shared.batch.generation_batch_size == alone.batch.generation_batch_size
    assert shared.loss == pytest.approx(alone.loss, rel=1e-5)
    assert shared.grad_norm == pytest.approx(alone.grad_norm, rel=1e-5)
    largest = max(gradient.abs().max().item() for gradient in alone.gradient.values())
    for name, gradient in alone.gradient.items():
        torch.testing.assert_close(shared.gradient[name], gradient, rtol=1e-4, atol=1e-5 * largest, msg=name)
