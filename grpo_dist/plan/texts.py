"""How long texts may be, decided once for training, engines and the filtering of prompts."""

from __future__ import annotations

from typing import NamedTuple

from grpo_dist.config import RunConfig

LONGEST_PROMPT = 512
"""Tokens of the longest prompt if no setting bounds it; the recipe's are 202."""


class Texts(NamedTuple):
    """Tokens."""

    prompt: int
    """Longest prompt."""
    prompt_source: str
    completion: int
    """Longest completion that is trained on."""
    engine: int
    """Context length of an engine: vLLM's `max_model_len`."""

    @property
    def assumed(self) -> bool:
        """No setting bounds a prompt."""
        return self.prompt_source.startswith("assumed")


def longest_completion(config: RunConfig) -> int:
    """Longest completion of training and comparison."""
    judged = (config.evaluation.max_completion_length or 0) if config.evaluation.enabled else 0
    return max(config.grpo.max_completion_length, judged)


def texts(config: RunConfig, positions: int | None) -> Texts:
    """As configured, or assumed if nothing is set.

    Args:
        positions: `max_position_embeddings` of the model; None if unknown.
    """
    longest, context = longest_completion(config), config.model.max_length
    prompt, source = _longest_prompt(config, longest, positions)
    engine = prompt + longest if context is None else context
    return Texts(prompt, source, config.grpo.max_completion_length, engine)


def _longest_prompt(config: RunConfig, completion: int, positions: int | None) -> tuple[int, str]:
    context, stated = config.model.max_length, config.data.max_prompt_length
    left = None if context is None else max(1, context - completion)
    if stated is not None:
        return (stated if left is None else min(stated, left)), "data.max_prompt_length"
    if left is not None:
        return left, "model.max_length − the longest completion"
    if positions is not None and positions - completion <= LONGEST_PROMPT:
        return max(1, positions - completion), "the model's positions − the longest completion"
    return LONGEST_PROMPT, "assumed: nothing stated bounds a prompt; set data.max_prompt_length"
