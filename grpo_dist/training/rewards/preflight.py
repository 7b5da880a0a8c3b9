"""The reward preflight on the data, template and tokenizer of a run.

Only what reads data or tokenizer is here; `grpo_dist.rewards.preflight` builds the cases and judges the results.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from grpo_dist.config.base import EMBEDDED
from grpo_dist.findings import Finding
from grpo_dist.progress import say, say_passing
from grpo_dist.rewards.guard import Batch
from grpo_dist.rewards.load import load_rewards
from grpo_dist.rewards.preflight.answers import answer_column, other_values, written
from grpo_dist.rewards.preflight.cases import (
    GOLD,
    GOLD_OTHER_OPENING,
    REPEATED,
    SAMPLED,
    WHAT,
    WRONG,
    Case,
    gold_cases,
    more_wrong,
    spoilt_cases,
    wrong_answers,
)
from grpo_dist.rewards.preflight.checks import findings
from grpo_dist.rewards.preflight.forms import FORMS, PROGRAMS, Form, prefilled_tag, stated_form, unnamed
from grpo_dist.rewards.preflight.trial import SAME, RewardResult, Scored, Trial, judged, totals, undecided
from grpo_dist.run.checkpoints import find_adapter
from grpo_dist.run.directory import write_json
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.generate import generate, settings
from grpo_dist.training.models.load import load_adapter, load_model
from grpo_dist.training.models.prompts import renderer_of
from grpo_dist.training.rewards.trial import RewardRunner

PROBLEMS = 64
PROBING_PROBLEMS = 8
"""Number of problems on which the answer forms are compared."""
CORRUPTED_PROBLEMS = 16
SLOW_SECONDS = 0.05
"""Seconds per completion: slower functions are tried on fewer problems, and progress is reported."""
BUDGET_SECONDS = 60.0
"""Seconds for finding the form, and again for trying it, with such slow functions."""
CASES_OF_ALL = 6
"""Approximate number of completions per problem."""
TO_PROBE = (GOLD, GOLD_OTHER_OPENING, WRONG)
EXAMPLE_CHARS = 300
TOKENS_OF_PHRASE = 4
"""Fewest tokens of a phrase, to compute how many repetitions reach the longest completion."""
NO_ANSWER = "42"
"""Placeholder for data without answers when no reward reads one."""


def try_rewards(run: Run, tokenizer: PreTrainedTokenizerBase, problems: Dataset) -> list[Finding]:
    """Run the rewards on `problems` (columns `prompt`, usually `answer`, and others), and record the results in the
    run.

    Errors that `rewards.allow` names are returned as warnings.
    """
    few = _some(problems, PROBLEMS, run.config.grpo.seed)
    preflight = Preflight(run, tokenizer, few)
    trial = preflight.run_all()
    found = [_as_allowed(finding, run.config.rewards.allow) for finding in findings(trial)]
    write_json(run.directory.rewards_preflight, _report(trial, found))
    return found


class Preflight:
    """A few problems, and what is needed to write completions for them."""

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerBase, problems: Dataset) -> None:
        self.run, self.tokenizer, self.rows = run, tokenizer, list(problems)
        self.longest = run.config.grpo.max_completion_length
        self.rewards = load_rewards(run.config.rewards.functions)
        self.answer_column = answer_column(self.rewards, problems.column_names)
        self.known = self.answer_column in problems.column_names
        self.answers = tuple(written(row.get(self.answer_column, NO_ANSWER)) for row in self.rows)
        self.renderer = renderer_of(run.config, tokenizer)
        self.rendered = [self.renderer.text(row["prompt"]) for row in self.rows]
        self.prefilled = prefilled_tag(self.rendered[0])

    def run_all(self) -> Trial:
        """What the rewards paid, and what the scorer of the comparison gave the same completions."""
        say_passing("rewards: preflight")
        with RewardRunner(self.run.config.rewards.functions, self.rewards, self._batch) as bench:
            pace = self._pace(bench)
            form = self._form(bench, pace)
            self._keep(_affordable(pace * CASES_OF_ALL, PROBLEMS), pace)
            cases = self._cases(form)
            samples, cut = self._sampled()
            tried = [
                replace(one, other_columns=tuple(name for name in reward.columns if name != self.answer_column))
                for one, reward in zip(bench.fresh(), self.rewards, strict=True)
            ]
            trial = self._trial(form, self._try(bench, tried, [*cases, *samples], pace), [*cases, *samples], cut)
            trial = self._with_more_wrong(trial, bench)
        return replace(trial, scorer=self._scored(form, cases))

    def _trial(self, form: Form, tried: Sequence[RewardResult], cases: Sequence[Case], cut: float) -> Trial:
        sampled = any(case.name == SAMPLED for case in cases)
        config = self.run.config
        taught = config.warm_start or config.model.adapter or config.model.name_or_path == EMBEDDED
        return Trial(
            functions=tuple(tried),
            form=form,
            prefilled=self.prefilled,
            answers=self.answers,
            completions_per_step=self.run.plan.batch.generation_batch_size,
            samples_per_problem=self.run.config.grpo.num_generations if sampled else 0,
            samples_cut=cut,
            lost_tags=self._lost(form),
            cases={case.name: case for case in cases},
            questions=tuple(str(row["prompt"][-1]["content"]) for row in self.rows),
            unnamed=() if taught else unnamed(form, self.rendered, self.tokenizer.chat_template or ""),
            answer_column=self.answer_column if self.known else None,
        )

    def _with_more_wrong(self, trial: Trial, bench: RewardRunner) -> Trial:
        """Further wrong answers for problems where the first was paid like the reference: it may be correct as well."""
        judges = [[one] for one in trial.reading] if len(trial.reading) > 1 else []
        rows = {row for judge in (*judges, trial.judging) for row in undecided(trial.verdicts(judge))}
        if not (rows and self.known):
            return trial
        case = more_wrong(trial.form, self.answers, sorted(rows), prefilled=self._opened(trial.form))
        if not case.completions:
            return trial
        tried = tuple(bench.tried(trial.functions, [case]))
        return replace(trial, functions=tried, cases={**trial.cases, case.name: case})

    def _scored(self, form: Form, cases: Sequence[Case]) -> Scored | None:
        """`evaluation.scorer` on the same right and wrong answers, or on fewer of them if it is slow."""
        section = self.run.config.evaluation
        if not (section.enabled and self.known):
            return None
        mine = [case for case in cases if case.name in (GOLD, WRONG)]
        with RewardRunner((section.scorer,), load_rewards((section.scorer,)), self._batch) as bench:
            pace = self._pace(bench)
            few = _affordable(pace * len(mine), len(self.rows))
            mine = [replace(one, completions=one.completions[:few], problems=one.problems[:few]) for one in mine]
            scored = Scored(self._try(bench, bench.fresh(), mine, pace)[0], section.threshold, tuple(mine))
            rows = [] if scored.tried.failures else undecided(scored.verdicts())
            case = more_wrong(form, self.answers, rows, prefilled=self._opened(form))
            if case.completions:
                scored = replace(scored, tried=bench.tried([scored.tried], [case])[0], cases=(*mine, case))
        return scored

    def _pace(self, bench: RewardRunner) -> float:
        """Seconds per completion of all functions together; measured twice, because a slow first call may load
        something.

        A function that fails here also fails in the cases, and is reported there.
        """
        one = gold_cases(FORMS[0], self.answers[:1], prefilled=False)[:1]
        pace = sum(tried.seconds_per_completion for tried in bench.tried(bench.fresh(), one))
        if pace > SLOW_SECONDS:
            pace = sum(tried.seconds_per_completion for tried in bench.tried(bench.fresh(), one))
        return pace

    def _keep(self, count: int, pace: float) -> None:
        """Keep only the first problems, and report it."""
        if count < len(self.rows):
            say(f"rewards: {pace:.2g} s per completion, so they are tried on {count} problems, not {len(self.rows)}")
            self.rows, self.answers, self.rendered = self.rows[:count], self.answers[:count], self.rendered[:count]

    def _try(
        self, bench: RewardRunner, tried: Sequence[RewardResult], cases: Sequence[Case], pace: float
    ) -> list[RewardResult]:
        if pace <= SLOW_SECONDS:
            return bench.tried(tried, cases)
        for number, case in enumerate(cases, 1):
            say_passing(f"rewards: {case.name}, {number} of {len(cases)} cases")
            tried = bench.tried(tried, [case])
        return list(tried)

    def _cases(self, form: Form) -> list[Case]:
        opened = self._opened(form)
        values = [row.get(self.answer_column, NO_ANSWER) for row in self.rows]
        told = other_values(values, wrong_answers(self.answers))
        few = self.answers[:CORRUPTED_PROBLEMS]
        return [
            *gold_cases(form, self.answers, prefilled=opened, told=told),
            *spoilt_cases(form, few, prefilled=opened, repetitions=1 + self.longest // TOKENS_OF_PHRASE),
        ]

    def _form(self, bench: RewardRunner, pace: float) -> Form:
        """The configured form, or the one in which most right answers are distinguished from wrong ones (ties: that
        pays most)."""
        stated = self.run.config.rewards.gold_completion
        if stated is not None:
            return stated_form(stated)
        forms = (*FORMS, *PROGRAMS)
        count = _affordable(pace * len(TO_PROBE) * len(forms), PROBING_PROBLEMS)
        worth = {}
        for number, form in enumerate(forms, 1):
            if pace > SLOW_SECONDS:
                say_passing(f"rewards: looking for the form they pay, {number} of {len(forms)}")
            worth[form.name] = self._worth(form, bench, count)
        return max(forms, key=lambda form: worth[form.name])

    def _worth(self, form: Form, bench: RewardRunner, count: int) -> tuple[int, float, float]:
        cases = gold_cases(form, self.answers[:count], prefilled=self._opened(form))
        tried = bench.tried(bench.fresh(), [case for case in cases if case.name in TO_PROBE])
        gold, other, wrong = (sum(totals(tried, case)) for case in (GOLD, GOLD_OTHER_OPENING, WRONG))
        pairs = zip(judged(tried, GOLD), judged(tried, WRONG), strict=True)
        apart = sum(None not in (right, one) and right > one + SAME for right, one in pairs)
        return apart, max(gold, other) if form.opening else gold, gold - wrong

    def _opened(self, form: Form) -> bool:
        return bool(form.opening) and form.opening == self.prefilled

    def _batch(self, case: Case) -> Batch:
        """As TRL calls rewards: completions without special tokens; repeated text ends at the longest completion."""
        cut = self.longest if case.name == REPEATED else None
        known = {text: self._ids(text)[:cut] for text in set(case.completions)}
        ids = [known[text] for text in case.completions]
        rows = [self.rows[problem] for problem in case.problems]
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
        if case.answers and self.known:
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
        """Completions of the untrained model, a group for each of the first problems, and the share cut off."""
        config = self.run.config
        count = min(config.rewards.preflight_samples, len(self.rows))
        if count == 0:
            return [], 0.0
        say_passing(f"rewards: sampling {config.grpo.num_generations} completions of {count} problems")
        model = load_model(self.run)
        if config.model.adapter is not None:
            model = load_adapter(model, Path(find_adapter(Path(config.model.adapter)).path))
        model = model.to(self.run.plan.topology.device).eval()
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


def _affordable(seconds_per_problem: float, most: int) -> int:
    """How many problems fit into the budget, at least one."""
    count = int(BUDGET_SECONDS / seconds_per_problem) if seconds_per_problem > 0 else most
    return min(most, max(1, count))


def _some(problems: Dataset, count: int, seed: int) -> Dataset:
    rows = range(len(problems))
    return problems.select(sorted(random.Random(seed).sample(rows, min(count, len(rows)))))


def _as_allowed(finding: Finding, allowed: Sequence[str]) -> Finding:
    """An allowed error becomes a warning; any other says how to allow it."""
    if finding.status != "error":
        return finding
    if finding.name in allowed:
        return replace(finding, status="warning", what=f"{finding.what} (allowed by rewards.allow)")
    names = ", ".join((*allowed, finding.name))
    return replace(finding, hint=f"{finding.hint}; if you know better: --set 'rewards.allow=[{names}]'")


def _report(trial: Trial, found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "form": trial.form.name,
        "prefilled": trial.prefilled,
        "problems": len(trial.answers),
        "answer_column": trial.answer_column,
        "functions": {
            one.name: {"weight": one.weight, "seconds_per_completion": one.seconds_per_completion}
            for one in trial.functions
        },
        "cases": {name: _paid(trial.functions, case) for name, case in trial.cases.items()},
        "scorer": _scorer(trial.scorer),
        "findings": [finding.to_dict() for finding in found],
    }


def _scorer(scorer: Scored | None) -> dict[str, Any] | None:
    """How many right and wrong answers the judge of the comparison accepts; null if nothing is compared."""
    if scorer is None:
        return None
    right = scorer.right()
    return {
        "name": scorer.tried.name,
        "threshold": scorer.threshold,
        "found_right": {case: {"right": sum(ones), "of": len(ones)} for case, ones in right.items()},
    }


def _paid(functions: Sequence[RewardResult], case: Case) -> dict[str, Any]:
    """Mean rewards of a case; None if a function failed or returned None for all."""
    paid = totals(functions, case.name)
    return {
        "what": WHAT[case.name],
        "example": case.completions[0][:EXAMPLE_CHARS],
        "functions": {one.name: one.mean(case.name) for one in functions},
        "total": sum(paid) / len(paid) if paid else None,
    }
