"""The one way from messages to what the model reads: the run's chat template with the run's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase

from grpo_dist.config import RunConfig
from grpo_dist.data.messages import Messages
from grpo_dist.errors import DataError
from grpo_dist.plan.checks import extra
from grpo_dist.training.common.process import Run


@dataclass(frozen=True)
class PromptRenderer:
    """As `GRPOTrainer` renders prompts for rollouts; every other place that renders a prompt uses this."""

    tokenizer: PreTrainedTokenizerBase
    arguments: Mapping[str, Any]
    """`grpo.chat_template_kwargs`"""

    def text(self, messages: Messages) -> str:
        """The text the model continues, generation prompt included."""
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **self.arguments
        )

    def answered(self, messages: Messages) -> str:
        """A conversation that ends with the assistant, as the template writes it."""
        return self.tokenizer.apply_chat_template(messages, tokenize=False, **self.arguments)

    def ids(self, messages: Messages) -> list[int]:
        """The same as token ids; with a BOS token if the template writes one."""
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, **self.arguments
        )

    def lengths(self, prompts: Sequence[Messages]) -> list[int]:
        """Prompt lengths in tokens, generation prompt included."""
        return [len(ids) for ids in self.ids(list(prompts))]

    def padded(self, prompts: Sequence[Messages]) -> BatchEncoding:
        """`input_ids` and `attention_mask`, (prompts, longest), padded on the tokenizer's side."""
        return self.tokenizer.apply_chat_template(
            list(prompts),
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
            **self.arguments,
        )


def renderer_of(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> PromptRenderer:
    """The renderer of a configuration, for a tokenizer that has the run's chat template.

    Raises:
        DataError: an argument is one that the renderer sets itself.
    """
    arguments = extra(config, "chat_template_kwargs") or {}
    for name in arguments:
        if name in inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters:
            raise DataError(
                f"grpo.chat_template_kwargs: {name!r} is an argument of the tokenizer, not of the chat template",
                hint="remove it; what the template reads by name goes here, e.g. enable_thinking",
            )
    return PromptRenderer(tokenizer, arguments)


def renderer_in(run: Run) -> PromptRenderer:
    """The renderer of a prepared run, with the tokenizer saved in it."""
    return renderer_of(run.config, AutoTokenizer.from_pretrained(run.directory.tokenizer, padding_side="left"))
