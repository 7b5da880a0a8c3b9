"""Rewards that pay nothing: one lets a test hold a run between two steps, one breaks the sync behind the run's back."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

STALE_AFTER = 3
"""Steps with a sync that works; the adapter of the last of them is sent again and again."""


def held(completions: list, trainer_state: Any, directory: str, **_: Any) -> list[float]:
    """Says `at-N` when the completions of step N are there, and waits while there is `hold-N`."""
    step = trainer_state.global_step
    (Path(directory) / f"at-{step}").touch()
    while (Path(directory) / f"hold-{step}").exists():
        time.sleep(0.01)
    return [0.0] * len(completions)


def stale(completions: list, trainer_state: Any, **_: Any) -> list[float]:
    """From the step after STALE_AFTER on, every sync sends the tensors of the one before."""
    if trainer_state.global_step == STALE_AFTER - 1:
        rollouts, sent = sys.modules["grpo_dist.training.rollouts.base"], {}
        gather = rollouts.gather_adapter

        def first_of_all(*arguments: Any) -> Any:
            return sent.setdefault("tensors", gather(*arguments))

        rollouts.gather_adapter = first_of_all
    return [0.0] * len(completions)
