"""Log-probabilities that models give to the same tokens: computed here, or by vLLM where it is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from statistics import fmean

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from grpo_dist.training.models.generate import Message, settings
from grpo_dist.training.models.prompts import PromptRenderer

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
    """Each prompt with the model's greedy completion."""
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
    """One text at a time: padding would change the sums that are compared."""
    return [_of_one(model, text) for text in texts]


def gap(ours: Logprobs, theirs: Logprobs) -> Gap:
    """How far the log-probabilities of two models differ on the same texts."""
    pairs = zip(chain.from_iterable(ours), chain.from_iterable(theirs), strict=True)
    differences = [abs(a - b) for a, b in pairs]
    return Gap(fmean(differences), max(differences))


def _of_one(model: PreTrainedModel | PeftModel, text: Text) -> list[float]:
    ids = torch.tensor([text.ids], device=model.device)
    keep = len(text.completion)
    # The logits before each completion token, (completion, vocabulary), without those of the whole prompt.
    logits = model(input_ids=ids, logits_to_keep=keep + 1).logits[0, -keep - 1 : -1].float()
    chosen = ids[0, -keep:, None]
    return torch.log_softmax(logits, dim=-1).gather(1, chosen).squeeze(1).tolist()


IN_THIS_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def vllm_is_here() -> bool:
    return find_spec("vllm") is not None


def vllm_logprobs(directory: Path, texts: Sequence[Text]) -> Logprobs:
    """log p of each completion token, as vLLM serves the model; the engine is started and stopped in this process."""
    for name, value in {**IN_THIS_PROCESS, **({} if torch.cuda.is_available() else ON_A_CPU)}.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(directory),
        enforce_eager=True,
        max_model_len=max(len(text.ids) for text in texts) + 1,
        max_num_seqs=len(texts),
        generation_config="vllm",
        enable_prefix_caching=False,  # it omits the logprobs of cached tokens
        disable_log_stats=True,
    )
    how = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
    outputs = engine.generate([{"prompt_token_ids": text.ids} for text in texts], how, use_tqdm=False)
    return [_logprobs_of_one(output.prompt_logprobs, text) for output, text in zip(outputs, texts, strict=True)]


def _logprobs_of_one(found: Sequence[dict | None], text: Text) -> list[float]:
    start = len(text.prompt)
    return [found[start + i][token].logprob for i, token in enumerate(text.completion)]
