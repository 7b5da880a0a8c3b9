"""TRL's trainer on fixed completions of uneven length, as if vLLM had sampled them a little differently."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import light_trl  # noqa: F401
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from grpo_dist.training.trainer.deferred_scoring import DeferredScoring
from grpo_dist.training.trainer.dynamic_sampling import DynamicSampling
from grpo_dist.training.trainer.micro_batches import TightMicroBatches

LONGEST = 24


class Ours(DynamicSampling, TightMicroBatches, DeferredScoring):
    """What `Trainer` makes of a step, without a run's rollouts and checkpoints."""


class StubVLLM:
    """In place of TRL's `VLLMGeneration`: completions follow from prompt and place, log-probabilities from the model.

    The latter are off by a little, more so in some completions, and one in twenty is unknown.
    """

    def __init__(self, model: Any, accelerator: Any, processing_class: Any, **_: Any) -> None:
        self.model, self.accelerator, self.tokenizer = model, accelerator, processing_class

    def sync_weights(self) -> None:
        pass

    def generate(self, prompts: list[list[int]], num_generations: int, **_: Any) -> tuple[Any, ...]:
        first = self.accelerator.process_index * len(prompts)
        rngs = [random.Random(f"{ids} {(first + i) % num_generations}") for i, ids in enumerate(prompts)]
        completions = [self._tokens(rng) for rng in rngs]
        logps = [self._logps(p, c, rng) for p, c, rng in zip(prompts, completions, rngs, strict=True)]
        return prompts, completions, logps, None

    def _tokens(self, rng: random.Random) -> list[int]:
        """A few are cut off at the limit, as those without an end token are."""
        length = rng.choice([2, 3, 5, 8, LONGEST])
        tokens = [rng.randrange(10, len(self.tokenizer)) for _ in range(length)]
        return tokens if length == LONGEST else [*tokens, self.tokenizer.eos_token_id]

    @torch.no_grad()
    def _logps(self, prompt: list[int], completion: list[int], rng: random.Random) -> list[list[float | None]]:
        logits = self.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        true = logits.log_softmax(-1)[range(len(completion)), completion].tolist()
        spread = rng.choice([0.01, 0.1, 0.4])
        return [[None if rng.random() < 0.05 else value + rng.gauss(0, spread)] for value in true]


@dataclass
class Steps(TrainerCallback):
    """What the steps of a training run computed."""

    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    """Per optimizer step: adapter tensor → gradient."""
    logs: list[dict[str, float]] = field(default_factory=list)
    forwards: int = 0
    """Forward passes that score completions."""
    tokens: int = 0
    """Tokens in them, padding included."""

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.logs.append(dict(logs))

    def count(self, _model: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("fused_lm_head"):
            self.forwards += 1
            self.tokens += kwargs["input_ids"].numel()


def checksum(completions: list[Any], **_: Any) -> list[float]:
    return [float(sum(map(ord, completion[0]["content"])) % 7) for completion in completions]


def additions(count: int) -> Dataset:
    rng = random.Random(0)
    asked = [f"{rng.choice([7, 12, 345])}+{index}=" for index in range(count)]
    return Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in asked])


def make_trainer(
    kind: type[GRPOTrainer],
    model: Path,
    output: Path,
    *,
    reward: Callable[..., list[float]] = checksum,
    prompts: int = 16,
    own: dict[str, Any] | None = None,
    lora: dict[str, Any] | None = None,
    **arguments: Any,
) -> GRPOTrainer:
    """A trainer of `kind` with a random adapter on the model (`lora` of its own), and `own` arguments of that kind.

    By default two optimizer steps of four micro-batches with four completions each: four groups of four.
    """
    grpo_trainer.VLLMGeneration = StubVLLM
    defaults = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "steps_per_generation": 4,
        "num_generations": 4,
        "max_completion_length": LONGEST,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "max_grad_norm": 0.0,
        "optim": "sgd",
        "use_vllm": True,
        "vllm_mode": "colocate",
        "gradient_checkpointing": False,
        "ddp_find_unused_parameters": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }
    torch.manual_seed(1)
    return kind(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        # A fresh adapter's B is zero, and with it the gradient of A.
        peft_config=LoraConfig(
            r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", **(lora or {})
        ),
        reward_funcs=reward,
        args=GRPOConfig(output_dir=str(output), **{**defaults, **arguments}),
        train_dataset=additions(prompts),
        processing_class=AutoTokenizer.from_pretrained(model),
        **(own or {}),
    )


def take_steps(trainer: GRPOTrainer) -> Steps:
    steps = Steps()
    trainer.add_callback(steps)
    handle = (
        trainer.accelerator.unwrap_model(trainer.model)
        .get_base_model()
        .register_forward_pre_hook(steps.count, with_kwargs=True)
    )
    trainer.train()
    handle.remove()
    return steps
