"""Rewards for the length of a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def soft_overlong_punishment(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    completion_ids: Sequence[Sequence[int]],
    max_completion_length: int,
    soft_punish_cache: int,
    **columns: Any,
) -> list[float | None]:
    """Soft overlong punishment, DAPO eq. 13 (arXiv 2503.14476): 0.0, falling to −1.0 over the last tokens.

    `max_completion_length` is L_max, `soft_punish_cache` is L_cache, both in tokens.
    """
    return [_punishment(len(ids), max_completion_length, soft_punish_cache) for ids in completion_ids]


def _punishment(length: int, longest: int, cache: int) -> float:
    free = longest - cache
    if length <= free:
        return 0.0
    return (free - length) / cache if length <= longest else -1.0
