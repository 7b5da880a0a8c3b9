"""Cost of a training step: TRL's trainer against ours, on the same completions of uneven length.

    python benchmarks/less_work.py

Prints JSON, and writes it to `benchmarks/results/less_work-MACHINE.json`. Generation is not in it: completions are
random tokens, log-normally long, with the log-probabilities a uniform model would give them. What is timed is the rest
of the step: scoring, micro-batches, loss, backward pass and update, by the trainer's own `training_step`. On a GPU
seconds, on a CPU those the process computed in: others on the machine do not enter. The trainers take turns.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from publishing import publish
from transformers import PrinterCallback, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

from grpo_dist.embedded.model import character_tokenizer
from grpo_dist.plan.specs.lookup import EMBEDDED
from grpo_dist.training.trainer.deferred_scoring import DeferredScoring
from grpo_dist.training.trainer.micro_batches import TightMicroBatches

GROUP = 8


@dataclass(frozen=True)
class Size:
    """A random Qwen3 and the completions it is trained on."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    completions: int
    micro_batch: int
    longest: int
    median: int


EMBEDDED_SIZE = Size(
    EMBEDDED.hidden_size,
    EMBEDDED.intermediate_size,
    EMBEDDED.num_hidden_layers,
    EMBEDDED.num_attention_heads,
    EMBEDDED.num_key_value_heads,
    EMBEDDED.head_dim,
    vocab_size=256,
    completions=64,
    micro_batch=8,
    longest=192,
    median=48,
)
LARGER = {
    "cpu": Size(256, 768, 4, 4, 2, 64, vocab_size=2048, completions=64, micro_batch=8, longest=192, median=48),
    # Qwen3-0.6B's shape
    "cuda": Size(
        1024, 3072, 28, 16, 8, 128, vocab_size=151936, completions=64, micro_batch=8, longest=2048, median=512
    ),
}


class FixedRollouts:
    """In place of TRL's `VLLMGeneration`."""

    def __init__(self, **_: Any) -> None:
        self.rng = random.Random(0)

    def sync_weights(self) -> None:
        pass

    def generate(self, prompts: list[list[int]], **_: Any) -> tuple[Any, ...]:
        size: Size = self.size
        lengths = [
            min(size.longest, max(2, round(self.rng.lognormvariate(math.log(size.median), 0.8)))) for _ in prompts
        ]
        completions = [[self.rng.randrange(10, 100) for _ in range(length)] for length in lengths]
        logps = [[[-math.log(size.vocab_size) + self.rng.gauss(0, 0.01)] for _ in ids] for ids in completions]
        return prompts, completions, logps, None


class Ours(TightMicroBatches, DeferredScoring):
    """What saves work in `grpo_dist.training.trainer.trainer.Trainer`, without a run."""


class Timer(TrainerCallback):
    """Seconds of each optimizer step, from its first micro-step to its update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(_now() - self.began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a turn, after one that is not")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--beta", type=float, default=0.0, help="above 0 the reference model is run too")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    publish(
        "less_work",
        f"{'seconds' if device == 'cuda' else 'CPU seconds'} of a training step without generation, median",
        {
            "threads": torch.get_num_threads(),
            "beta": arguments.beta,
            "timed_steps": arguments.steps,
            "turns": arguments.turns,
            "embedded size": compare(EMBEDDED_SIZE, device, arguments),
            "larger": compare(LARGER[device], device, arguments),
        },
        packages=("torch", "trl", "transformers", "peft"),
        cuda=device == "cuda",
    )


def compare(size: Size, device: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """TRL's steps and ours by turns, each time from the same weights and with the same completions."""
    turns = [
        tuple(median_step(kind, size, device, arguments.steps, arguments.beta) for kind in (GRPOTrainer, Ours))
        for _ in range(arguments.turns)
    ]
    trl, ours = (round(statistics.median(side), 4) for side in zip(*turns, strict=True))
    ratios = sorted(round(theirs / our, 2) for theirs, our in turns)
    return {"trl": trl, "ours": ours, "ratio": statistics.median(ratios), "ratios": ratios, **vars(size)}


def median_step(kind: type[GRPOTrainer], size: Size, device: str, steps: int, beta: float) -> float:
    timer = Timer()
    with tempfile.TemporaryDirectory() as directory:
        trainer = make_trainer(kind, size, device, steps + 1, beta, directory)
        trainer.remove_callback(PrinterCallback)  # standard output is for the result
        trainer.add_callback(timer)
        trainer.train()
    return statistics.median(timer.seconds[1:])


def make_trainer(
    kind: type[GRPOTrainer], size: Size, device: str, steps: int, beta: float, directory: str
) -> GRPOTrainer:
    grpo_trainer.VLLMGeneration = type("Rollouts", (FixedRollouts,), {"size": size})
    tokenizer = character_tokenizer(size.longest + 64)
    rows = [{"prompt": [{"role": "user", "content": f"{i}+{i}="}]} for i in range(size.completions // GROUP * steps)]
    micro_batches = size.completions // size.micro_batch
    return kind(
        model=_model(size, tokenizer),
        peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        reward_funcs=lambda completions, **_: [float(len(one[0]["content"]) % 7) for one in completions],
        args=GRPOConfig(
            output_dir=directory,
            per_device_train_batch_size=size.micro_batch,
            gradient_accumulation_steps=micro_batches,
            steps_per_generation=micro_batches,
            num_generations=GROUP,
            max_completion_length=size.longest,
            max_steps=steps,
            beta=beta,
            use_vllm=True,
            vllm_mode="colocate",
            use_cpu=device == "cpu",
            bf16=device == "cuda",
            gradient_checkpointing=device == "cuda",
            save_strategy="no",
            report_to="none",
            logging_steps=steps,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def _model(size: Size, tokenizer: Any) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    shape = {name: getattr(size, name) for name in (*names, "head_dim", "vocab_size")}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    return Qwen3ForCausalLM(Qwen3Config(**shape, **ids, tie_word_embeddings=True))


def _now() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
