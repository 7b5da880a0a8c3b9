"""Generating from a model outside the trainer, the way the trainer does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from grpo_dist.training.models.prompts import PromptRenderer
from grpo_dist.training.models.special_tokens import end_tokens

Message = dict[str, str]


@dataclass(frozen=True)
class Completion:
    """One generated text, its length in tokens (end token included), and whether the length limit cut it off."""

    text: str
    tokens: int
    clipped: bool


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
