"""Base against trained model on held-out problems."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from grpo_dist.config.rewards import FunctionOrName, RewardFunction
from grpo_dist.config.section import Conflict, Fraction, NonNegative, Positive, Section


class EvaluationSection(Section):
    """Greedy pass@1, and mean@k and pass@k over samples, for both models on the same problems."""

    enabled: bool = True
    """Off: no problems are held out and no comparison is made."""
    num_problems: Positive = 256
    """Held-out problems used; all of them when there are fewer."""
    num_samples: NonNegative = 8
    """k: sampled completions per problem for mean@k and pass@k; 0 leaves them out."""
    temperature: float | None = Field(default=None, gt=0)
    """Temperature of the samples; `grpo.temperature` when not given."""
    max_completion_length: Positive | None = None
    """Longest completion, in tokens; `grpo.max_completion_length` when not given."""
    batch_size: Positive = 64
    """Completions generated at a time."""
    scorer: FunctionOrName = RewardFunction(name="accuracy")
    """Function that judges a completion; a plain string stands for `{name: string}`. `accuracy` compares the last
    marked answer, else the last number, with the column `answer`; another notion of right needs a function of yours.
    """
    threshold: float = 1.0
    """A completion is correct when its score is at least this."""
    confidence: Fraction = 0.95
    """Level of the intervals."""
    bootstrap_samples: Positive = 2000
    """Has no effect: intervals are computed by formula now. It stands so that earlier configurations still load."""

    def conflicts(self) -> Iterator[Conflict]:
        if self.num_samples == 0 and self.temperature is not None:
            yield ("temperature",), "nothing is sampled with evaluation.num_samples 0; remove it, or set num_samples: 8"
