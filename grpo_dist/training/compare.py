"""The compare stage: base and trained model on the same held-out problems."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from grpo_dist.evaluation.comparison import Answered, Problem, compare
from grpo_dist.evaluation.statistics import Bootstrap
from grpo_dist.progress import say_passing
from grpo_dist.rewards.load import LoadedReward, load_rewards
from grpo_dist.run_directory import write_json
from grpo_dist.training.generation import Completion, generate, settings
from grpo_dist.training.model import load_adapter, load_model
from grpo_dist.training.stage import Run, main

PROGRESS_SECONDS = 2.0


def compare_models(run: Run) -> None:
    """Answer every held-out problem with both models, greedily and k times sampled, and write `comparison.json`."""
    evaluation = run.config.evaluation
    contest = Contest(run)
    base, base_seconds = contest.answer(adapter=False)
    trained, trained_seconds = contest.answer(adapter=True)
    bootstrap = Bootstrap(evaluation.bootstrap_samples, evaluation.confidence, run.config.grpo.seed)
    write_json(
        run.directory.comparison,
        {
            **compare(contest.problems, base, trained, bootstrap),
            "scorer": evaluation.scorer.name,
            "seconds": {"base": base_seconds, "trained": trained_seconds},
        },
    )


class Contest:
    """One model, with its adapter on or off, the held-out problems, and the judge."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows = Dataset.from_parquet(str(run.directory.heldout_data), keep_in_memory=True)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(run.directory.tokenizer)
        device = torch.device(run.plan.topology.device)
        self.model: PeftModel = load_adapter(load_model(run), run.directory.adapter).to(device).eval()
        self.scorer: LoadedReward = load_rewards((run.config.evaluation.scorer,))[0]
        self.problems = [Problem(_question(row["prompt"]), str(row.get("answer", "–"))) for row in self.rows]

    def answer(self, *, adapter: bool) -> tuple[list[Answered], float]:
        """Answers to all problems, and the seconds they took. The same seed for both models."""
        config, began = self.run.config, time.perf_counter()
        torch.manual_seed(config.grpo.seed)
        with nullcontext() if adapter else self.model.disable_adapter():
            greedy = self._complete(self._settings(1, do_sample=False), f"{_name(adapter)} model, greedy")
            k = config.evaluation.num_samples
            sampled = self._complete(self._sampling(k), f"{_name(adapter)} model, {k} samples") if k else []
        seconds = time.perf_counter() - began
        greedy_right = self._judge(greedy, 1)
        sampled_right = self._judge(sampled, k) if k else [0] * len(greedy)
        return [
            Answered(one.text, bool(right), one.tokens, one.clipped, samples_right, k)
            for [one], right, samples_right in zip(greedy, greedy_right, sampled_right, strict=True)
        ], seconds

    def _complete(self, how: GenerationConfig, what: str) -> list[list[Completion]]:
        prompts, size = list(self.rows["prompt"]), self.run.config.evaluation.batch_size
        done, shown = [], time.monotonic()
        for group in generate(self.model, self.tokenizer, prompts, batch_size=size, settings=how):
            done.append(group)
            if time.monotonic() - shown > PROGRESS_SECONDS or len(done) == len(prompts):
                say_passing(f"comparing: {what}, {len(done)} of {len(prompts)} problems")
                shown = time.monotonic()
        return done

    def _judge(self, groups: list[list[Completion]], per_prompt: int) -> list[int]:
        """How many completions of each problem are correct."""
        columns: dict[str, list[Any]] = {
            name: [value for value in self.rows[name] for _ in range(per_prompt)] for name in self.rows.column_names
        }
        completions = [[{"role": "assistant", "content": one.text}] for group in groups for one in group]
        scores = self.scorer(prompts=columns.pop("prompt"), completions=completions, **columns)
        right = [score is not None and score >= self.run.config.evaluation.threshold for score in scores]
        return [sum(right[i : i + per_prompt]) for i in range(0, len(right), per_prompt)]

    def _settings(self, per_prompt: int, **sampling: Any) -> GenerationConfig:
        config = self.run.config
        limit = config.evaluation.max_completion_length or config.grpo.max_completion_length
        return settings(self.model, self.tokenizer, max_new_tokens=limit, per_prompt=per_prompt, **sampling)

    def _sampling(self, per_prompt: int) -> GenerationConfig:
        grpo, evaluation = self.run.config.grpo, self.run.config.evaluation
        return self._settings(
            per_prompt,
            do_sample=True,
            temperature=evaluation.temperature or grpo.temperature,
            top_p=grpo.top_p,
            top_k=grpo.top_k,
            min_p=grpo.min_p,
        )


def _name(adapter: bool) -> str:
    return "trained" if adapter else "base"


def _question(prompt: list[dict[str, str]]) -> str:
    """The last message of the user: what the problem asks."""
    return next(message["content"] for message in reversed(prompt) if message["role"] == "user")


if __name__ == "__main__":
    main(compare_models)
