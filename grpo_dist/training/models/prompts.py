"""The one way from messages to what the model reads: the run's chat template with the run's arguments.

A model's special tokens are found here too: which one begins a text, which end a completion, and which one pads.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, BatchEncoding, GenerationConfig, PreTrainedTokenizerBase

from grpo_dist.config import RunConfig
from grpo_dist.data.messages import Messages
from grpo_dist.errors import DataError
from grpo_dist.plan.checks import extra
from grpo_dist.plan.named_files import not_read, unread_arguments
from grpo_dist.training.common.process import Run

USUAL_PADS = (
    "<pad>",
    "<|pad|>",
    "[PAD]",
    "<|finetune_right_pad_id|>",  # Llama 3
    "<|vision_pad|>",  # Qwen
    "<|fim_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SPARE = ("pad", "reserved", "unused", "extra_id")
"""Parts of the names of reserved, unused tokens."""


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model's texts begin with a BOS token: its tokenizer adds it, or its own template writes it."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return False
    if tokenizer("a")["input_ids"][:1] == [bos]:
        return True
    if not tokenizer.chat_template:
        return False
    try:
        turn = [{"role": "user", "content": "a"}]
        own = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    except Exception:  # A template may raise anything; whether it is usable is checked elsewhere.
        return False
    return own.lstrip().startswith(tokenizer.bos_token)


def end_tokens(declared: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every end token the model declares ends a completion, not only the tokenizer's (as in `GRPOTrainer`)."""
    ids = declared.eos_token_id
    ends = ids if isinstance(ids, list) else [] if ids is None else [ids]
    return sorted({*ends, tokenizer.eos_token_id})


def settle_pad(tokenizer: PreTrainedTokenizerBase, ends: Collection[int], vocabulary: int) -> None:
    """Give the tokenizer a pad token that occurs in no text, if its own also ends texts or is missing.

    Unsloth detects padding by token id: an end token used as padding is removed from prompts and from the loss. An
    unused token that has an embedding is chosen; if there is none, the end token remains (TRL uses masks).

    Args:
        ends: ids that end a completion.
        vocabulary: rows of the embedding; larger ids have none.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in ends:
        return
    used = {*ends, tokenizer.bos_token_id}
    for token in _spare(tokenizer):
        number = tokenizer.convert_tokens_to_ids(token)
        if number is not None and number not in used and number < vocabulary and token not in _template(tokenizer):
            tokenizer.pad_token = token
            return
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _spare(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    special = [str(one) for one in tokenizer.added_tokens_decoder.values() if one.special]
    yield from (token for token in USUAL_PADS if token in special)
    yield from (token for token in special if any(part in token.lower() for part in SPARE))
    if tokenizer.unk_token is not None:
        yield tokenizer.unk_token


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.chat_template or ""


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
        DataError: an argument is one that the renderer sets itself, or that the template does not read.
    """
    arguments = extra(config, "chat_template_kwargs") or {}
    for name in arguments:
        if name in inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters:
            raise DataError(
                f"grpo.chat_template_kwargs: {name!r} is an argument of the tokenizer, not of the chat template",
                hint="remove it; what the template reads by name goes here, e.g. enable_thinking",
            )
    if unread := unread_arguments(str(tokenizer.chat_template or ""), arguments):
        raise DataError(not_read(unread), hint="correct its spelling, or remove it")
    return PromptRenderer(tokenizer, arguments)


def renderer_in(run: Run) -> PromptRenderer:
    """The renderer of a prepared run, with the tokenizer saved in it."""
    return renderer_of(run.config, AutoTokenizer.from_pretrained(run.directory.tokenizer, padding_side="left"))
