"""Which completions are right, as the evaluation section says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from grpo_dist.config.evaluation import EvaluationSection
from grpo_dist.rewards.load import LoadedReward, load_rewards
from grpo_dist.training.generation import Completion


class Judge:
    """`evaluation.scorer`, which finds a completion right from `evaluation.threshold` on."""

    def __init__(self, section: EvaluationSection) -> None:
        self.scorer: LoadedReward = load_rewards((section.scorer,))[0]
        self.threshold = section.threshold

    def right(self, rows: Dataset, groups: Sequence[Sequence[Completion]]) -> list[int]:
        """How many completions of each problem are right; one group of equal size for each row."""
        per_prompt = len(groups[0])
        columns: dict[str, list[Any]] = {
            name: [value for value in rows[name] for _ in range(per_prompt)] for name in rows.column_names
        }
        completions = [[{"role": "assistant", "content": one.text}] for group in groups for one in group]
        scores = self.scorer(prompts=columns.pop("prompt"), completions=completions, **columns)
        right = [score is not None and score >= self.threshold for score in scores]
        return [sum(right[i : i + per_prompt]) for i in range(0, len(right), per_prompt)]
