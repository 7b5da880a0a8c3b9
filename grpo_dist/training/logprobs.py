"""What two models make of the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from grpo_dist.training.generation import Message, settings
from grpo_dist.training.prompts import PromptRenderer

Logprobs = list[list[float]]
"""log p of each completion token, for each text."""


@dataclass(frozen=True)
class Text:
    """A prompt and a completion as token ids."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *self.completion]


@dataclass(frozen=True)
class Gap:
    """Absolute differences of logprobs over all tokens, in nats."""

    mean: float
    largest: float


@torch.inference_mode()
def texts_of(
    model: PreTrainedModel | PeftModel,
    renderer: PromptRenderer,
    prompts: Sequence[list[Message]],
    *,
    max_new_tokens: int,
) -> list[Text]:
    """Each prompt with the model's own likeliest completion."""
    how = settings(model, renderer.tokenizer, max_new_tokens=max_new_tokens, per_prompt=1, do_sample=False)
    found = []
    for prompt in prompts:
        inputs = renderer.padded([prompt]).to(model.device)
        row = model.generate(**inputs, generation_config=how)[0].tolist()
        length = inputs["input_ids"].shape[1]
        found.append(Text(tuple(row[:length]), tuple(row[length:])))
    return found


@torch.inference_mode()
def logprobs(model: PreTrainedModel | PeftModel, texts: Sequence[Text]) -> Logprobs:
    """Each text by itself: padding would change the sums that are compared."""
    return [_of_one(model, text) for text in texts]


def gap(ours: Logprobs, theirs: Logprobs) -> Gap:
    """How far two models are from each other on the same texts."""
    pairs = zip(chain.from_iterable(ours), chain.from_iterable(theirs), strict=True)
    differences = [abs(a - b) for a, b in pairs]
    return Gap(fmean(differences), max(differences))


def _of_one(model: PreTrainedModel | PeftModel, text: Text) -> list[float]:
    ids = torch.tensor([text.ids], device=model.device)
    keep = len(text.completion)
    # The logits before each completion token, (completion, vocabulary), and not those of the whole prompt.
    logits = model(input_ids=ids, logits_to_keep=keep + 1).logits[0, -keep - 1 : -1].float()
    chosen = ids[0, -keep:, None]
    return torch.log_softmax(logits, dim=-1).gather(1, chosen).squeeze(1).tolist()
