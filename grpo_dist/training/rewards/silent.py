"""Rewards that return None for every completion, step after step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from trl import GRPOTrainer

from grpo_dist.errors import RewardError
from grpo_dist.progress import say

PATIENCE = 3
"""Consecutive steps: a judge may be unreachable for one step, and a batch may hold no problem of its kind."""


class HearsSilence(GRPOTrainer):
    """Reports which functions return only None, and stops training when all of them do: nothing is learnt then."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._silence = Silence([getattr(function, "name", str(function)) for function in self.reward_funcs])

    def _calculate_rewards(self, *arguments: Any) -> torch.Tensor:
        # TRL 1.16 returns the scores of all processes, NaN for None. If it marks None otherwise, silence goes
        # unnoticed.
        scores = super()._calculate_rewards(*arguments)
        for told in self._silence.of(scores.isnan().all(dim=0).tolist(), len(scores), self.state.global_step):
            if self.accelerator.is_main_process:
                say(told)
        return scores


class Silence:
    """Follows the functions of a run over its steps."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.steps: dict[str, set[int]] = defaultdict(set)
        """Name → the number of latest consecutive steps in which it returned None for every completion."""
        self.told: set[str] = set()

    def of(self, silent: Sequence[bool], completions: int, step: int) -> Iterator[str]:
        """Warnings after one more batch; for each function, whether it returned only None.

        Raises:
            RewardError: all functions returned None for PATIENCE consecutive steps.
        """
        for name, is_silent in zip(self.names, silent, strict=True):
            if is_silent:
                self.steps[name].add(step)
            else:
                self.steps[name].clear()
        if all(silent):
            yield from self._nothing_paid(completions, step)
        else:
            yield from self._left_out(completions, step)

    def _nothing_paid(self, completions: int, step: int) -> Iterator[str]:
        names = ", ".join(f"'{name}'" for name in self.names)
        what = f"reward {names} returned None for all {completions} completions at step {step}"
        if min(len(self.steps[name]) for name in self.names) >= PATIENCE:
            raise RewardError(
                f"{what}, as in the {PATIENCE - 1} steps before: nothing is learnt",
                hint="return a number for the completions it can judge; None leaves one out",
            )
        yield f"warning: {what}: nothing was learnt from them"

    def _left_out(self, completions: int, step: int) -> Iterator[str]:
        for name in self.names:
            if len(self.steps[name]) >= PATIENCE and name not in self.told:
                self.told.add(name)
                what = f"returned None for all {completions} completions at step {step}, and in the steps before"
                yield f"warning: reward '{name}' {what}: it pays nothing"
