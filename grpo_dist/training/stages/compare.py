"""The compare stage: base and trained model on the same held-out problems."""

from __future__ import annotations

import shutil
import time
from collections import Counter

import torch
from datasets import Dataset

from grpo_dist.config import RunConfig
from grpo_dist.data.identity import problem_key
from grpo_dist.data.json_cells import read_problems
from grpo_dist.evaluation.comparison import Answered, ComparedProblem, Paired, compare
from grpo_dist.plan.comparison import generates_on_engines
from grpo_dist.progress import say_passing
from grpo_dist.run.directory import write_json
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.comparison_parts import Part, Shared, take_part
from grpo_dist.training.models.generate import (
    Answerer,
    Completion,
    Grader,
    LocalModel,
    Sampling,
    greedy,
    mean_score,
    sampled,
)
from grpo_dist.training.models.load import load_adapter, load_model
from grpo_dist.training.models.prompts import renderer_in
from grpo_dist.training.models.served import has_pool, pool_of, served_models

PROGRESS_SECONDS = 2.0


def compare_models(run: Run) -> None:
    """Answer every held-out problem with both models, greedily and k times sampled, and write `comparison.json`."""
    evaluation, part = run.config.evaluation, Part(0, 1) if has_pool(run) else take_part(run.plan)
    if part is None:
        return
    contest = ModelComparison(run.config, read_problems(run.directory.heldout_data))
    base_model, trained_model = (_shared(run, model, part) for model in _models(run))
    if part.index > 0:
        for model in (base_model, trained_model):
            contest.answer_only(model)
        return
    base, base_seconds = contest.answers(base_model)
    trained, trained_seconds = contest.answers(trained_model)
    write_json(
        run.directory.comparison,
        {
            **compare(contest.problems, base, trained, contest.paired),
            "scorer": evaluation.scorer.name,
            "seconds": {"base": base_seconds, "trained": trained_seconds},
            "answered_by": dict(sorted(contest.answered_by.items())),
        },
    )
    shutil.rmtree(run.directory.comparison_parts, ignore_errors=True)


def _shared(run: Run, model: Answerer, part: Part) -> Answerer:
    if part.count == 1:
        return model
    run.directory.comparison_parts.mkdir(exist_ok=True)
    return Shared(model, part, run.directory.comparison_parts, run.config.grpo.seed)


def _models(run: Run) -> tuple[Answerer, Answerer]:
    """Base and trained: the same weights with the adapter off and on; on the run's servers if it has any, on an engine
    of this process if training had one."""
    if has_pool(run):
        return served_models(run, pool_of(run))
    if generates_on_engines(run.config):
        from grpo_dist.training.models.comparison_parts import engine_models

        return engine_models(run)
    device = torch.device(run.plan.topology.device)
    model = load_adapter(load_model(run), run.directory.adapter).to(device).eval()
    renderer, size = renderer_in(run), run.config.evaluation.batch_size
    return (
        LocalModel("base model", model, renderer, size, adapter=False),
        LocalModel("trained model", model, renderer, size),
    )


class ModelComparison:
    """The problems and the judge, for any model to answer."""

    def __init__(self, config: RunConfig, rows: Dataset) -> None:
        self.config, self.rows = config, rows
        self.judge = Grader(config.evaluation)
        self.problems = [ComparedProblem(_question(row["prompt"]), str(row.get("answer", "–"))) for row in rows]
        self.answered_by: Counter[str] = Counter()
        self.paired = Paired(config.evaluation.confidence, tuple(problem_key(row["prompt"]) for row in rows))

    def answers(self, answerer: Answerer) -> tuple[list[Answered], float]:
        """Answers to all problems, and the seconds they took. The same seed for every model."""
        k, began = self.config.evaluation.num_samples, time.perf_counter()
        torch.manual_seed(self.config.grpo.seed)
        first = self._complete(answerer, greedy(self.config), "greedy")
        samples = self._complete(answerer, sampled(self.config), f"{k} samples") if k else []
        seconds = time.perf_counter() - began
        greedy_scores = self.judge.scores(self.rows, first)
        sampled_scores = self.judge.scores(self.rows, samples) if k else [[] for _ in first]
        return [
            self._answered(one, mine, others)
            for [one], mine, others in zip(first, greedy_scores, sampled_scores, strict=True)
        ], seconds

    def _answered(self, greedy: Completion, mine: list[float | None], others: list[float | None]) -> Answered:
        """What one model answered to one problem, with the scores of its greedy completion and of the samples."""
        correct = self.judge.correct
        return Answered(
            greedy.text,
            bool(correct(mine)),
            greedy.tokens,
            greedy.clipped,
            correct(others),
            len(others),
            mean_score(mine),
            mean_score(others) if others else None,
        )

    def answer_only(self, answerer: Answerer) -> None:
        """The answers as plain data, for another process to judge."""
        prompts = list(self.rows["prompt"])
        for how in (greedy(self.config), *([sampled(self.config)] if self.config.evaluation.num_samples else [])):
            list(answerer.answer(prompts, how))

    def _complete(self, answerer: Answerer, how: Sampling, what: str) -> list[list[Completion]]:
        prompts, done, shown = list(self.rows["prompt"]), [], time.monotonic()
        for group in answerer.answer(prompts, how):
            done.append(group)
            self.answered_by.update(one.by for one in group)
            if time.monotonic() - shown > PROGRESS_SECONDS or len(done) == len(prompts):
                say_passing(f"comparing: {answerer.name}, {what}, {len(done)} of {len(prompts)} problems")
                shown = time.monotonic()
        return done


def _question(prompt: list[dict[str, str]]) -> str:
    """The last user message: what the problem asks."""
    return next(message["content"] for message in reversed(prompt) if message["role"] == "user")
