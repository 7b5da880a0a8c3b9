"""Generating from a model outside the trainer, the way the trainer does, and judging answers, whatever generates them.

Completions are judged correct as the `evaluation` section says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from grpo_dist.config import RunConfig
from grpo_dist.config.generation_fields import SAME, SAMPLED_ONLY, TRANSFORMERS, VLLM
from grpo_dist.config.sections import EvaluationSection
from grpo_dist.plan.checks import extra
from grpo_dist.progress import say
from grpo_dist.rewards.load import LoadedReward, load_rewards
from grpo_dist.training.models.prompts import PromptRenderer, end_tokens

Message = dict[str, str]


@dataclass(frozen=True)
class Completion:
    """One generated text, its length in tokens (end token included), and whether the length limit cut it off."""

    text: str
    tokens: int
    clipped: bool
    by: str = "process 0"
    """The process or server that generated it."""


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    renderer: PromptRenderer,
    prompts: Sequence[list[Message]],
    *,
    batch_size: int,
    settings: GenerationConfig,
) -> Iterator[list[Completion]]:
    """`settings.num_return_sequences` completions for each prompt, in order; about `batch_size` at a time."""
    per_prompt = settings.num_return_sequences
    stride = max(1, batch_size // per_prompt)
    for start in range(0, len(prompts), stride):
        batch = prompts[start : start + stride]
        inputs = renderer.padded(batch).to(model.device)
        output = model.generate(**inputs, generation_config=settings)
        completions = [
            _completion(row, renderer.tokenizer, settings) for row in output[:, inputs["input_ids"].shape[1] :]
        ]
        for i in range(0, len(completions), per_prompt):
            yield completions[i : i + per_prompt]


def settings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_new_tokens: int,
    per_prompt: int,
    **sampling: float | int | bool | None,
) -> GenerationConfig:
    """As `GenerationConfig`, with the ids of pad, BOS and end tokens."""
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_return_sequences=per_prompt,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end_tokens(model.generation_config, tokenizer),
        disable_compile=True,
        **sampling,
    )


def _completion(row: torch.Tensor, tokenizer: PreTrainedTokenizerBase, settings: GenerationConfig) -> Completion:
    """Cut a padded row of token ids, shape (new tokens,), after its first end token."""
    ends = torch.isin(row, torch.tensor(settings.eos_token_id, device=row.device)).nonzero()
    length = int(ends[0]) + 1 if len(ends) else len(row)
    text = tokenizer.decode(row[:length], skip_special_tokens=True)
    return Completion(text, length, clipped=not len(ends))


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: `num_samples` for each prompt, of at most `max_tokens` tokens each."""

    num_samples: int
    max_tokens: int
    temperature: float | None = None
    """None: greedy decoding; the settings below are ignored."""
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    further: Mapping[str, Any] = field(default_factory=dict)
    """`grpo.generation_kwargs`, named as the generating backend names them."""


class Answerer(Protocol):
    """A model that answers prompts, wherever it runs."""

    name: str

    def answer(self, prompts: Sequence[list[Message]], how: Sampling) -> Iterator[list[Completion]]:
        """`how.num_samples` completions for each prompt, in order."""
        ...


@dataclass(frozen=True)
class LocalModel:
    """A model in this process; with `adapter` off, the base model of a PEFT model."""

    name: str
    model: PreTrainedModel | PeftModel
    renderer: PromptRenderer
    batch_size: int
    adapter: bool = True

    def answer(self, prompts: Sequence[list[Message]], how: Sampling) -> Iterator[list[Completion]]:
        with nullcontext() if self.adapter else self.model.disable_adapter():
            yield from generate(
                self.model, self.renderer, prompts, batch_size=self.batch_size, settings=self._settings(how)
            )

    def _settings(self, how: Sampling) -> GenerationConfig:
        drawn = {"do_sample": False}
        if how.temperature is not None:
            drawn = {
                "do_sample": True,
                "temperature": how.temperature,
                "top_p": how.top_p,
                "top_k": how.top_k,
                "min_p": how.min_p,
                "repetition_penalty": how.repetition_penalty,
            }
        further = for_transformers(how.further, self.renderer.tokenizer, sampled=how.temperature is not None)
        limits = {"max_new_tokens": how.max_tokens, "per_prompt": how.num_samples}
        return settings(self.model, self.renderer.tokenizer, **limits, **drawn, **further)


def for_transformers(stated: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, sampled: bool) -> dict[str, Any]:
    """`grpo.generation_kwargs` as `GenerationConfig` takes them; arguments only vLLM has are left out, which is
    reported."""
    there = {name: value for name, value in stated.items() if name in TRANSFORMERS}
    if not sampled:
        there = {name: value for name, value in there.items() if name not in SAMPLED_ONLY}
    if "min_tokens" in stated:
        there["min_new_tokens"] = stated["min_tokens"]
    if stated.get("logit_bias"):
        there["sequence_bias"] = [[[int(token)], float(bias)] for token, bias in stated["logit_bias"].items()]
    if stated.get("bad_words"):
        spelled = [form for word in stated["bad_words"] for form in (word, f" {word.lstrip()}")]
        there["bad_words_ids"] = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in spelled]
    lost = sorted(name for name in stated if name in VLLM and name not in SAME)
    if lost:
        _say_once(f"warning: grpo.generation_kwargs {', '.join(lost)}: only vLLM has it; completions here are without")
    return there


@cache
def _say_once(text: str) -> None:
    say(text)


def greedy(config: RunConfig) -> Sampling:
    """One completion per prompt, by greedy decoding."""
    longest = config.evaluation.max_completion_length or config.grpo.max_completion_length
    return Sampling(1, longest, further=config.generation_kwargs)


def sampled(config: RunConfig) -> Sampling:
    """k completions per prompt, sampled as in training unless the evaluation sets a temperature."""
    grpo, evaluation = config.grpo, config.evaluation
    return Sampling(
        evaluation.num_samples,
        evaluation.max_completion_length or grpo.max_completion_length,
        evaluation.temperature or grpo.temperature,
        grpo.top_p,
        grpo.top_k,
        grpo.min_p,
        extra(config, "repetition_penalty", 1.0),
        config.generation_kwargs,
    )


class Grader:
    """`evaluation.scorer`, which judges a completion correct from `evaluation.threshold` upwards."""

    def __init__(self, section: EvaluationSection) -> None:
        self.scorer: LoadedReward = load_rewards((section.scorer,))[0]
        self.threshold = section.threshold

    def right(self, rows: Dataset, groups: Sequence[Sequence[Completion]]) -> list[int]:
        """How many completions of each problem are correct; one group of equal size for each row."""
        return [self.correct(scores) for scores in self.scores(rows, groups)]

    def correct(self, scores: Sequence[float | None]) -> int:
        """How many completions with these scores are correct."""
        return sum(score is not None and score >= self.threshold for score in scores)

    def scores(self, rows: Dataset, groups: Sequence[Sequence[Completion]]) -> list[list[float | None]]:
        """What the scorer gives the completions of each problem; one group of equal size for each row."""
        per_prompt = len(groups[0])
        columns: dict[str, list[Any]] = {
            name: [value for value in rows[name] for _ in range(per_prompt)] for name in rows.column_names
        }
        completions = [[{"role": "assistant", "content": one.text}] for group in groups for one in group]
        scores = self.scorer(prompts=columns.pop("prompt"), completions=completions, **columns)
        return [scores[i : i + per_prompt] for i in range(0, len(scores), per_prompt)]


def mean_score(scores: Sequence[float | None]) -> float | None:
    """The mean of scores from 0 to 1, None counting as 0; None if one is no such score."""
    credit = [score or 0.0 for score in scores]
    return sum(credit) / len(credit) if all(0 <= score <= 1 for score in credit) else None
