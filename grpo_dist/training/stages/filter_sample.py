"""The second stage of `grpo-dist filter`: every problem sampled k times, in portions that survive a crash."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch

from grpo_dist.data.filtered import ROW
from grpo_dist.data.readers import read_files
from grpo_dist.evaluation.pass_rates import PassRate, Record
from grpo_dist.progress import say_passing
from grpo_dist.report.numbers import duration
from grpo_dist.run.directory import write_json
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.generate import Completion, Grader, LocalModel, Message, sampled
from grpo_dist.training.models.load import load_adapter, load_model
from grpo_dist.training.models.prompts import renderer_in
from grpo_dist.training.models.served import has_pool, pool_of, served_model

PROGRESS_SECONDS = 2.0


def sample(run: Run) -> None:
    """Sample the problems that are not done yet; `sampled.json`, written last, marks completion."""
    rows = read_files([run.directory.train_data])
    record, judge = Record(run.directory.pass_rates), Grader(run.config.evaluation)
    model = _ServedSampler(run) if has_pool(run) else _LocalSampler(run)
    found = _whole_portions(record, model.portion, len(rows))
    progress = _SamplingProgress(len(found), len(rows))
    for start in range(len(found), len(rows), model.portion):
        part = rows.select(range(start, min(start + model.portion, len(rows))))
        groups = model.answers(part["prompt"][:], start)
        right = judge.right(part.remove_columns(ROW), groups)
        new = [
            PassRate(row, len(group), count, sum(one.clipped for one in group))
            for row, group, count in zip(part[ROW], groups, right, strict=True)
        ]
        record.append(new)
        found += new
        progress.tell(found)
    write_json(run.directory.sampled, {"problems": len(rows), "samples": run.config.evaluation.num_samples})


def _whole_portions(record: Record, portion: int, total: int) -> list[PassRate]:
    """The number of problems done; an incomplete portion is sampled again, so that the seeds stay the same."""
    there = record.read()
    done = there if len(there) == total else there[: len(there) // portion * portion]
    record.keep(len(done))
    return done


class _SamplingProgress:
    """Reports progress, and the remaining time at the speed of this attempt."""

    def __init__(self, before: int, total: int) -> None:
        self.before, self.total = before, total
        self.began = self.shown = time.monotonic()

    def tell(self, found: Sequence[PassRate]) -> None:
        now, left = time.monotonic(), self.total - len(found)
        if now - self.shown < PROGRESS_SECONDS and left:
            return
        self.shown = now
        mean = fmean(one.rate for one in found)
        seconds = (now - self.began) / (len(found) - self.before) * left
        say_passing(
            f"filter: {len(found):,} of {self.total:,} problems · pass rate {mean:.1%} · {duration(seconds)} left"
        )


class _LocalSampler:
    """The model in this process. Seeds belong to portions, which are the same in every attempt."""

    def __init__(self, run: Run) -> None:
        self.how, self.seed, size = sampled(run.config), run.config.grpo.seed, run.config.evaluation.batch_size
        self.portion = max(1, size // self.how.num_samples)
        model = load_model(run)
        if run.directory.warm_start.exists():
            model = load_adapter(model, run.directory.warm_start)
        model = model.to(torch.device(run.plan.topology.device)).eval()
        self.model = LocalModel("base model", model, renderer_in(run), size)

    def answers(self, prompts: Sequence[list[Message]], start: int) -> list[list[Completion]]:
        torch.manual_seed(self.seed + start)
        return list(self.model.answer(prompts, self.how))


class _ServedSampler:
    """The run's servers, given enough at once that none of them idles. Seeds belong to problems."""

    def __init__(self, run: Run) -> None:
        self.how, warm = sampled(run.config), run.directory.warm_start
        self.model = served_model("base model", run, pool_of(run), warm if warm.exists() else None)
        self.portion = max(1, self.model.at_once // self.how.num_samples)

    def answers(self, prompts: Sequence[list[Message]], start: int) -> list[list[Completion]]:
        seed = self.model.seed + start * self.how.num_samples
        return list(replace(self.model, seed=seed).answer(prompts, self.how))
