"""The logprobs that vLLM gives to texts, where vLLM is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from grpo_dist.training.logprobs import Logprobs, Text

IN_THIS_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def vllm_is_here() -> bool:
    return find_spec("vllm") is not None


def vllm_logprobs(directory: Path, texts: Sequence[Text]) -> Logprobs:
    """log p of each completion token, as vLLM serves the model; the engine lives and dies in this process."""
    for name, value in {**IN_THIS_PROCESS, **({} if torch.cuda.is_available() else ON_A_CPU)}.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(directory),
        enforce_eager=True,
        max_model_len=max(len(text.ids) for text in texts) + 1,
        max_num_seqs=len(texts),
        generation_config="vllm",
        enable_prefix_caching=False,  # it leaves out the logprobs of what it has cached
        disable_log_stats=True,
    )
    how = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
    outputs = engine.generate([{"prompt_token_ids": text.ids} for text in texts], how, use_tqdm=False)
    return [_of_one(output.prompt_logprobs, text) for output, text in zip(outputs, texts, strict=True)]


def _of_one(found: Sequence[dict | None], text: Text) -> list[float]:
    start = len(text.prompt)
    return [found[start + i][token].logprob for i, token in enumerate(text.completion)]
