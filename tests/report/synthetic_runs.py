"""Run directories that look like real ones, from a seed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOSTILE = "</script></pre><img src=x onerror=alert(1)><svg onload=alert(2)>\"'&{{ 7*7 }}"
REWARDS = ("match_format_exactly", "match_format_approximately", "check_answer", "check_numbers")

CONFIG = """\
model:
  name_or_path: embedded
lora:
  r: 32
data:
  name_or_path: embedded
grpo:
  prompts_per_step: 16
  num_generations: 8
  learning_rate: 0.0004
evaluation:
  enabled: true
"""
ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux-6.1-x86_64",
    "cpu_count": 2,
    "gpus": [],
    "grpo_dist": "0.1.0",
    "git": None,
    "packages": {"torch": "2.13.0", "trl": "1.16.0", "transformers": "5.17.0", "peft": "0.19.1"},
}
PREPARED = {
    "train": 900,
    "heldout": 256,
    "dropped_for_length": 10,
    "prompt_length_limit": 201,
    "notes": ["10 prompts longer than 201 tokens were dropped"],
}


SERVERS = {
    "backend": "vllm",
    "topology": {
        "device": "cuda",
        "mode": "server",
        "num_processes": 1,
        "tensor_parallel_size": 1,
        "replicas": [{"node": 0, "gpus": [1]}, {"node": 0, "gpus": [2]}],
    },
}


def make_run(
    path: Path,
    *,
    steps: int = 50,
    seed: int = 0,
    rewards: tuple[str, ...] = REWARDS,
    compared: bool = True,
    served: bool = False,
) -> Path:
    """A whole run, but for its completions; its rollouts come from vLLM servers if it is `served`."""
    path.mkdir(parents=True)
    chance = random.Random(seed)
    (path / "config.yaml").write_text(CONFIG)
    write_json(path / "plan.json", plan(steps) | (SERVERS if served else {}))
    write_json(path / "environment.json", ENVIRONMENT)
    write_json(path / "prepared.json", PREPARED)
    logged = [step_metrics(step, steps, rewards, chance) for step in range(1, steps + 1)]
    if served:
        logged = [metrics | rollout_metrics(metrics, chance) for metrics in logged]
    write_metrics(path, logged)
    if compared:
        (path / "adapter").mkdir()
        write_json(path / "comparison.json", comparison(chance))
    return path


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def write_metrics(path: Path, records: list[Mapping[str, Any]]) -> None:
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def plan(steps: int | None) -> dict[str, Any]:
    return {
        "batch": {
            "num_processes": 1,
            "per_device_train_batch_size": 64,
            "gradient_accumulation_steps": 2,
            "steps_per_generation": 2,
            "generation_batch_size": 128,
            "num_generations": 8,
            "prompts_per_step": 16,
        },
        "topology": {"device": "cpu"},
        "strategy": "ddp",
        "distributed_type": "NO",
        "backend": "transformers",
        "max_steps": steps,
        "warnings": [],
    }


def step_metrics(step: int, steps: int, rewards: tuple[str, ...], chance: random.Random) -> dict[str, Any]:
    """One line of metrics.jsonl: learning that saturates, with noise."""
    done = step / steps
    learned = 1 - math.exp(-4 * done)
    parts = {name: 0.5 + i + 2.2 * learned + chance.gauss(0, 0.25) for i, name in enumerate(rewards)}
    length = 21 - 3 * learned + chance.gauss(0, 0.5)
    speed = 2600 + chance.gauss(0, 140) if step > 1 else 900.0
    return {
        "step": step,
        "time": 1_790_000_000 + 1.4 * step,
        "epoch": done,
        "loss": chance.gauss(0, 0.01),
        "grad_norm": abs(0.4 + chance.gauss(0, 0.12)),
        "learning_rate": 4e-4 * (1 - done),
        "reward": sum(parts.values()),
        "reward_std": 2.6 - 1.4 * learned,
        "frac_reward_zero_std": min(1.0, max(0.0, 0.7 * learned + chance.gauss(0, 0.07))),
        **{f"rewards/{name}/mean": value for name, value in parts.items()},
        **{f"rewards/{name}/std": 1.2 - 0.7 * learned for name in parts},
        "completions/mean_length": length,
        "completions/min_length": length - chance.randint(3, 7),
        "completions/max_length": min(32.0, length + chance.randint(4, 14)),
        "completions/clipped_ratio": max(0.0, 0.06 * (1 - learned) + chance.gauss(0, 0.01)),
        "entropy": 0.5 - 0.35 * learned + chance.gauss(0, 0.02),
        "num_tokens": 4000 * step,
        "step_time": 1.4 + chance.gauss(0, 0.1),
        "clip_ratio/region_mean": 0.0,
        "perf/tokens_per_second": speed,
        "perf/completion_tokens_per_second": speed * 0.4,
    }


def rollout_metrics(metrics: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    """What a line has besides when vLLM servers generate and up to three batches are drawn for a step."""
    step, total = metrics["step"], metrics["step_time"]
    difference, drawn = 0.004 * math.exp(chance.gauss(0, 0.3)), 16 + chance.randint(0, 9)
    return {
        "perf/policy_version": step - 1,
        "perf/generation_seconds": (0.6 + chance.gauss(0, 0.02)) * total,
        "perf/sync_seconds": 0.05 * total,
        "perf/sync_bytes": 66_100_000.0,
        "perf/idle_share": 0.65 + chance.gauss(0, 0.02),
        "perf/prompt_tokens_per_second": metrics["perf/tokens_per_second"] * 0.6,
        "sampling/sampling_logp_difference/mean": difference,
        "sampling/sampling_logp_difference/max": 60 * difference,
        "sampling/effective_sample_size": 1 - 0.004 * step / (step + 1),
        "sampling/low_weight_share": 0.0,
        "sampling/groups_drawn": drawn,
        "sampling/groups_kept": 16,
        "sampling/generation_batches": 1 + (drawn > 16) + (drawn > 21),
        **({"perf/replica_utilization": 0.8 + chance.gauss(0, 0.03)} if step > 1 else {}),
        **({"perf/canary_difference": 0.002} if step <= 2 or step % 10 == 0 else {}),
    }


def comparison(chance: random.Random, *, problems: int = 256, k: int = 8, decorate: str = "") -> dict[str, Any]:
    """comparison.json of a model that learned to carry; `decorate` is put into every text."""
    listed = [_problem(index, k, chance, decorate) for index in range(problems)]
    gained = [p for p in listed if p["trained"]["greedy_correct"] > p["base"]["greedy_correct"]]
    lost = [p for p in listed if p["trained"]["greedy_correct"] < p["base"]["greedy_correct"]]
    return {
        "problems": problems,
        "different_problems": problems,
        "k": k,
        "confidence": 0.95,
        "scorer": "accuracy",
        "seconds": {"base": 11.2, "trained": 10.4},
        "base": _scores(0.551, 0.39, 0.93, 20.1, 0.012),
        "trained": _scores(0.969, 0.81, 1.0, 17.3, 0.0),
        "difference": {"estimate": 0.418, "low": 0.359, "high": 0.478},
        "differences": {
            "greedy_accuracy": {"estimate": 0.418, "low": 0.359, "high": 0.478},
            "mean_at_k": {"estimate": 0.42, "low": 0.38, "high": 0.46},
            "pass_at_k": {"estimate": 0.07, "low": 0.04, "high": 0.11},
        },
        "flipped": {"gained": [_flip(p) for p in gained[:10]], "lost": [_flip(p) for p in lost[:10]]},
        "gained": len(gained),
        "lost": len(lost),
        "per_problem": listed,
    }


def samples(step: int, chance: random.Random, *, decorate: str = "") -> dict[str, list[Any]]:
    """The columns of one of TRL's completions files: 2 prompts × 8 completions."""
    prompts = [messages(f"{chance.randint(10, 99)} + {chance.randint(10, 99)} = ?{decorate}") for _ in range(2)]
    values = [chance.choice([-2.0, 3.5, 5.0]) for _ in range(16)]
    return {
        "step": [step] * 16,
        "policy_version": [step - 1] * 16,
        "prompt": [prompt for prompt in prompts for _ in range(8)],
        "completion": [[{"role": "assistant", "content": working(v > 0) + decorate}] for v in values],
        "check_answer": values,
        "check_numbers": [value / 2 for value in values],
        "advantage": [value / 3 for value in values],
    }


def write_samples(path: Path, steps: list[int], *, seed: int = 0, decorate: str = "") -> None:
    """completions/ as TRL leaves it. Needs pyarrow."""
    import pyarrow
    import pyarrow.parquet

    chance = random.Random(seed)
    (path / "completions").mkdir()
    for step in steps:
        table = pyarrow.table(samples(step, chance, decorate=decorate))
        pyarrow.parquet.write_table(table, path / "completions" / f"completions_{step:05d}.parquet")


def messages(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "You are given a problem."}, {"role": "user", "content": question}]


def working(right: bool) -> str:
    answer, carry = ("84", "carry 1") if right else ("74", "forget it")
    return f"7 + 7 = 14, {carry}, 3 + 4 = {answer[0]}<end_working_out><SOLUTION>{answer}</SOLUTION>"


def _interval(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": max(0.0, estimate - 0.06), "high": min(1.0, estimate + 0.06)}


def _scores(greedy: float, mean: float, any_of_k: float, length: float, clipped: float) -> dict[str, Any]:
    return {
        "greedy_accuracy": _interval(greedy),
        "mean_at_k": _interval(mean),
        "pass_at_k": _interval(any_of_k),
        "mean_completion_length": length,
        "clipped_ratio": clipped,
    }


def _problem(index: int, k: int, chance: random.Random, decorate: str) -> dict[str, Any]:
    base, trained = chance.random() < 0.55, chance.random() < 0.97
    return {
        "index": index,
        "prompt": messages(f"What is {chance.randint(10, 99)} + {chance.randint(10, 99)}? {decorate}"),
        "answer": f"84{decorate}",
        "base": {
            "greedy_correct": base,
            "samples_correct": chance.randint(0, k),
            "greedy": working(base) + decorate,
        },
        "trained": {
            "greedy_correct": trained,
            "samples_correct": chance.randint(k // 2, k),
            "greedy": working(trained) + decorate,
        },
    }


def _flip(problem: Mapping[str, Any]) -> dict[str, Any]:
    texts = {who: problem[who]["greedy"] for who in ("base", "trained")}
    return {"prompt": problem["prompt"], "answer": problem["answer"], **texts}
