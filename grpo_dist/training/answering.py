"""Who answers prompts: the seam between what is asked and judged, and where completions come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from grpo_dist.config import RunConfig
from grpo_dist.plan.contradictions import extra
from grpo_dist.training.generation import Completion, Message, generate, settings
from grpo_dist.training.prompts import PromptRenderer


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: `num_samples` for each prompt, of at most `max_tokens` tokens each."""

    num_samples: int
    max_tokens: int
    temperature: float | None = None
    """None: greedily, and what follows does not count."""
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0


class Answerer(Protocol):
    """A model that answers prompts, wherever it runs."""

    name: str

    def answer(self, prompts: Sequence[list[Message]], how: Sampling) -> Iterator[list[Completion]]:
        """`how.num_samples` completions for each prompt, in order."""
        ...


@dataclass(frozen=True)
class LocalModel:
    """A model in this process; with `adapter` off, the base under a PEFT model's adapter."""

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
        return settings(
            self.model, self.renderer.tokenizer, max_new_tokens=how.max_tokens, per_prompt=how.num_samples, **drawn
        )


def greedy(config: RunConfig) -> Sampling:
    """One completion a prompt, always the likeliest token."""
    return Sampling(1, config.evaluation.max_completion_length or config.grpo.max_completion_length)


def sampled(config: RunConfig) -> Sampling:
    """k completions a prompt, drawn as in training unless the evaluation states a temperature."""
    grpo, evaluation = config.grpo, config.evaluation
    return Sampling(
        evaluation.num_samples,
        evaluation.max_completion_length or grpo.max_completion_length,
        evaluation.temperature or grpo.temperature,
        grpo.top_p,
        grpo.top_k,
        grpo.min_p,
        extra(config, "repetition_penalty", 1.0),
    )
