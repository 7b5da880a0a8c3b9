"""The reward preflight on the data, template and tokenizer of a run.

Here stands what reads data and tokenizer; `grpo_dist.rewards.preflight` makes the cases and judges.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from grpo_dist.findings import Finding
from grpo_dist.progress import say_passing
from grpo_dist.rewards.guard import Batch
from grpo_dist.rewards.load import LoadedReward, load_rewards
from grpo_dist.rewards.preflight.cases import (
    GOLD,
    GOLD_OTHER_OPENING,
    REPEATED,
    SAMPLED,
    WHAT,
    WRONG,
    Case,
    gold_cases,
    spoilt_cases,
)
from grpo_dist.rewards.preflight.checks import Trial, findings
from grpo_dist.rewards.preflight.forms import FORMS, Form, prefilled_tag, stated_form
from grpo_dist.rewards.preflight.tried import Tried, totals
from grpo_dist.run_directory import write_json
from grpo_dist.training.generation import generate, settings
from grpo_dist.training.model import load_model
from grpo_dist.training.prompts import renderer_of
from grpo_dist.training.reward_trial import Bench
from grpo_dist.training.stage import Run

PROBLEMS = 64
PROBING_PROBLEMS = 8
"""Problems on which the forms are compared."""
SPOILT_PROBLEMS = 16
EXAMPLE_CHARS = 300
TOKENS_OF_PHRASE = 4
"""At the least: what is repeated is to reach the longest completion."""
NO_ANSWER = "42"
"""Stands in where the data has no answers and no reward reads one."""


def try_rewards(run: Run, tokenizer: PreTrainedTokenizerBase, problems: Dataset) -> list[Finding]:
    """Try the rewards on `problems` (columns `prompt`, mostly `answer`, others), and leave what they paid in the run.

    Errors that `rewards.allow` names come back as warnings.
    """
    few = _some(problems, PROBLEMS, run.config.grpo.seed)
    preflight = Preflight(run, tokenizer, few)
    trial, examples = preflight.run_all()
    allowed = run.config.rewards.allow
    found = [_allowed(finding) if finding.name in allowed else finding for finding in findings(trial)]
    write_json(run.directory.rewards_preflight, _report(trial, examples, found))
    return found


class Preflight:
    """A few problems, and what is needed to write completions to them."""

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerBase, problems: Dataset) -> None:
        self.run, self.tokenizer, self.rows = run, tokenizer, problems.to_list()
        self.longest = run.config.grpo.max_completion_length
        self.rewards = load_rewards(run.config.rewards.functions)
        self.answer_column = _answer_column(self.rewards, problems.column_names)
        self.answers = tuple(str(row.get(self.answer_column, NO_ANSWER)) for row in self.rows)
        self.renderer = renderer_of(run.config, tokenizer)
        self.prefilled = prefilled_tag(self.renderer.text(self.rows[0]["prompt"]))

    def run_all(self) -> tuple[Trial, dict[str, str]]:
        """What the rewards paid, and an example of each case."""
        section = self.run.config.rewards
        say_passing("rewards: preflight")
        with Bench(section.functions, self.rewards, self._batch) as bench:
            form = self._form(bench)
            opened = self._opened(form)
            cases = gold_cases(form, self.answers, prefilled=opened)
            few = self.answers[:SPOILT_PROBLEMS]
            cases += spoilt_cases(form, few, prefilled=opened, repetitions=1 + self.longest // TOKENS_OF_PHRASE)
            samples, cut = self._sampled()
            tried = bench.tried(bench.fresh(), [*cases, *samples])
        trial = Trial(
            functions=tuple(tried),
            form=form,
            prefilled=self.prefilled,
            answers=self.answers,
            completions_per_step=self.run.plan.batch.generation_batch_size,
            samples_per_problem=self.run.config.grpo.num_generations if samples else 0,
            samples_cut=cut,
            lost_tags=self._lost(form),
        )
        return trial, {case.name: case.completions[0][:EXAMPLE_CHARS] for case in [*cases, *samples]}

    def _form(self, bench: Bench) -> Form:
        """The stated form, or the one in which right answers are paid most (then: most above wrong ones)."""
        stated = self.run.config.rewards.gold_completion
        if stated is not None:
            return stated_form(stated)
        return max(FORMS, key=lambda form: self._worth(form, bench))

    def _worth(self, form: Form, bench: Bench) -> tuple[float, float]:
        cases = gold_cases(form, self.answers[:PROBING_PROBLEMS], prefilled=self._opened(form))
        tried = bench.tried(bench.fresh(), cases)
        gold, other, wrong = (sum(totals(tried, case)) for case in (GOLD, GOLD_OTHER_OPENING, WRONG))
        return max(gold, other) if form.opening else gold, gold - wrong

    def _opened(self, form: Form) -> bool:
        return bool(form.opening) and form.opening == self.prefilled

    def _batch(self, case: Case) -> Batch:
        """As TRL calls rewards: completions without special tokens; what is repeated ends at the longest."""
        cut = self.longest if case.name == REPEATED else None
        known = {text: self._ids(text)[:cut] for text in set(case.completions)}
        ids = [known[text] for text in case.completions]
        rows = [self.rows[problem] for problem in case.problems]
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
        if case.answers:
            columns[self.answer_column] = list(case.answers)
        return Batch(
            [row["prompt"] for row in rows],
            [[{"role": "assistant", "content": self._decoded(one)}] for one in ids],
            {**columns, "completion_ids": ids},
        )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _decoded(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _lost(self, form: Form) -> tuple[str, ...]:
        kept = self._decoded(self.tokenizer("".join(form.tags()), add_special_tokens=False)["input_ids"])
        return tuple(tag for tag in form.tags() if tag not in kept)

    def _sampled(self) -> tuple[list[Case], float]:
        """Completions of the model as it is, a group for each of the first problems, and the share that was cut."""
        config = self.run.config
        count = min(config.rewards.preflight_samples, len(self.rows))
        if count == 0:
            return [], 0.0
        say_passing(f"rewards: sampling {config.grpo.num_generations} completions of {count} problems")
        model = load_model(self.run).to(self.run.plan.topology.device).eval()
        how = settings(
            model,
            self.tokenizer,
            max_new_tokens=self.longest,
            per_prompt=config.grpo.num_generations,
            do_sample=True,
            temperature=config.grpo.temperature,
            top_p=config.grpo.top_p,
            top_k=config.grpo.top_k,
            min_p=config.grpo.min_p,
        )
        torch.manual_seed(config.grpo.seed)
        prompts = [row["prompt"] for row in self.rows[:count]]
        size = config.evaluation.batch_size
        groups = list(generate(model, self.renderer, prompts, batch_size=size, settings=how))
        completions = [one for group in groups for one in group]
        problems = tuple(problem for problem, group in enumerate(groups) for _ in group)
        case = Case(SAMPLED, tuple(one.text for one in completions), problems)
        return [case], sum(one.clipped for one in completions) / len(completions)


def _answer_column(rewards: Sequence[LoadedReward], there: Sequence[str]) -> str:
    """`answer`, or where the data has none the first column that a reward asks for."""
    asked = [column for reward in rewards for column in reward.columns if column in there]
    return asked[0] if asked and "answer" not in there else "answer"


def _some(problems: Dataset, count: int, seed: int) -> Dataset:
    rows = range(len(problems))
    return problems.select(sorted(random.Random(seed).sample(rows, min(count, len(rows)))))


def _allowed(finding: Finding) -> Finding:
    return replace(finding, status="warning", what=f"{finding.what} (allowed by rewards.allow)")


def _report(trial: Trial, examples: Mapping[str, str], found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "form": trial.form.name,
        "prefilled": trial.prefilled,
        "problems": len(trial.answers),
        "functions": {
            one.name: {"weight": one.weight, "seconds_per_completion": one.seconds_per_completion}
            for one in trial.functions
        },
        "cases": {case: _paid(trial.functions, case, example) for case, example in examples.items()},
        "findings": [finding.to_dict() for finding in found],
    }


def _paid(functions: Sequence[Tried], case: str, example: str) -> dict[str, Any]:
    """Mean rewards of a case; None where a function failed, or left all out."""
    paid = totals(functions, case)
    return {
        "what": WHAT[case],
        "example": example,
        "functions": {one.name: one.mean(case) for one in functions},
        "total": sum(paid) / len(paid) if paid else None,
    }
