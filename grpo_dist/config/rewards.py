"""Which functions pay for a completion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from grpo_dist.config.section import Conflict, Name, NonNegative, Section

Allowable = Literal[
    "reward-fails",
    "reward-stalls",
    "reward-crashes",
    "never-varies",
    "gold-below-wrong",
    "gold-like-wrong",
    "unparsable-gold",
    "prefilled-tag",
    "tags-lost",
    "scorer-blind",
]
"""Errors of the reward preflight (`grpo_dist.rewards.preflight.checks`)."""


class RewardFunction(Section):
    """One reward: a name of ours, or a function of yours."""

    takes: ClassVar[str] = "the name of a function or a group of settings"

    name: Name
    """A name in `grpo_dist.rewards.REWARDS`, a set of them (`notebook`, `strict`), or a function of yours:
    `package.module:function` or `path/file.py:function`.
    """
    weight: float = 1.0
    """Factor in the sum of rewards (TRL's `reward_weights`)."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments bound to the function."""


def as_function(value: Any) -> Any:
    """`notebook` → `{name: notebook}`; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def as_functions(value: Any) -> Any:
    """One function, not in a list → a list of one; anything else as it is."""
    return [value] if isinstance(value, (str, dict)) else value


FunctionOrName = Annotated[RewardFunction, BeforeValidator(as_function)]


class RewardsSection(Section):
    """The rewards of a completion are the weighted sum of these functions."""

    functions: Annotated[tuple[FunctionOrName, ...], BeforeValidator(as_functions)] = Field(
        default=(RewardFunction(name="notebook"),), min_length=1
    )
    """Functions in order; a plain string stands for `{name: string}`."""
    allow: tuple[Allowable, ...] = ()
    """Errors of the reward preflight that do not stop a run, by name."""
    gold_completion: Name | None = None
    """A completion that answers rightly, with `{answer}` where the answer stands, for the preflight; when not given
    it tries the usual forms (tags, a box, `####`, fenced code, words) and takes the one that is paid best.
    """
    preflight_samples: NonNegative = 0
    """Problems to which the untrained model also writes completions in the preflight; 0 does not load it."""

    def conflicts(self) -> Iterator[Conflict]:
        if self.gold_completion is not None and "{answer}" not in self.gold_completion:
            yield ("gold_completion",), "says nowhere where the answer stands; write {answer} there"
