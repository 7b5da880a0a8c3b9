"""Named starts of `grpo-dist init`: tasks with data and rewards, and algorithms with the settings of their papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grpo_dist.config import generators
from grpo_dist.errors import ConfigError
from grpo_dist.text import closest

Changes = dict[tuple[str, str], Any]
"""(section, setting) → its value; None removes the line."""
OWN_DATA = dict.fromkeys(("data", name) for name in ("config", "columns", "answer_extractor", "eval_split"))
"""Settings of the starter's own data set, which another does not have."""


@dataclass(frozen=True)
class NamedTask:
    """What is trained on, and how it is rewarded."""

    about: str
    data: str
    rewards: tuple[str, ...]
    needs: str
    settings: Changes = field(default_factory=dict)

    @property
    def changes(self) -> Changes:
        """What differs from the starter."""
        return {
            **OWN_DATA,
            ("data", "name_or_path"): self.data,
            ("rewards", "functions"): list(self.rewards),
            **self.settings,
        }


HUB = "the Hub, or its cache"
GYM = "the extra reasoning-gym"
CODE = f"{HUB}; a sandbox (grpo-dist doctor)"
GRADED = ("reasoning_gym", "strict_format")

TASKS: Mapping[str, NamedTask] = {
    "gsm8k": NamedTask("grade-school mathematics, 7,473 problems", "openai/gsm8k", ("strict",), HUB),
    "math": NamedTask(
        "competition mathematics, 7,500 problems",
        "DigitalLearningGmbH/MATH-lighteval",
        ("strict",),
        HUB,
        {("grpo", "max_completion_length"): 1024},
    ),
    "dapo-math": NamedTask(
        "competition mathematics with whole numbers as answers, 14 thousand problems",
        "open-r1/DAPO-Math-17k-Processed",
        ("strict",),
        HUB,
        {("data", "eval_fraction"): 0.02, ("grpo", "max_completion_length"): 1536},
    ),
    "mbpp": NamedTask("short Python functions, 374 problems", "google-research-datasets/mbpp", ("code",), CODE),
    "humaneval": NamedTask(
        "Python functions from their docstrings, 164 problems",
        "openai/openai_humaneval",
        ("code",),
        CODE,
        {("data", "split"): "test", ("data", "eval_fraction"): 0.3},
    ),
    "countdown": NamedTask(
        "reach a number with given numbers and operators",
        "reasoning_gym/countdown",
        GRADED,
        GYM,
        {
            ("data", "generator"): {
                "size": 2000,
                "min_numbers": 3,
                "max_numbers": 4,
                "min_target": 10,
                "max_target": 100,
            }
        },
    ),
}
"""Besides them, `reasoning_gym/NAME` is a task for every generator."""


@dataclass(frozen=True)
class Algorithm:
    """A variant of GRPO."""

    about: str
    source: str
    grpo: Mapping[str, Any]

    @property
    def changes(self) -> Changes:
        """What differs from the starter."""
        return {("grpo", name): value for name, value in self.grpo.items()}


ALGORITHMS: Mapping[str, Algorithm] = {
    "grpo": Algorithm(
        "loss averaged over each completion, advantages divided by the group's deviation, KL penalty",
        "DeepSeekMath, arXiv 2402.03300, section 4.2",
        {"loss_type": "grpo", "scale_rewards": "group", "beta": 0.04},
    ),
    "dr_grpo": Algorithm(
        "no division by the completion's length or by the group's deviation, no KL penalty",
        "Understanding R1-Zero-Like Training, arXiv 2503.20783, section 3",
        {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0},
    ),
    "dapo": Algorithm(
        "loss over all tokens, a higher upper clip, groups of equal rewards replaced, no KL penalty",
        "DAPO, arXiv 2503.14476, sections 3 and 4.1; at most 10 batches for a step as in verl's recipe",
        {
            "loss_type": "dapo",
            "scale_rewards": "group",
            "beta": 0.0,
            "epsilon": 0.2,
            "epsilon_high": 0.28,
            "max_num_gen_batches": 10,
        },
    ),
    "gspo": Algorithm(
        "one ratio for each completion, clipped narrowly",
        "Group Sequence Policy Optimization, arXiv 2507.18071, section 5.1",
        {
            "importance_sampling_level": "sequence",
            "loss_type": "grpo",
            "scale_rewards": "group",
            "beta": 0.0,
            "epsilon": 3e-4,
            "epsilon_high": 4e-4,
        },
    ),
    "cispo": Algorithm(
        "the ratio's weight is clipped instead of its gradient, so every token learns",
        "MiniMax-M1, arXiv 2506.13585; the bound is that of ScaleRL, arXiv 2510.13786",
        {"loss_type": "cispo", "beta": 0.0, "epsilon_high": 5.0},
    ),
}


def task(name: str) -> NamedTask:
    """The task of that name, or that of a generator.

    Raises:
        ConfigError: there is none.
    """
    if name in TASKS:
        return TASKS[name]
    if generators.is_generated(name):
        for _, wrong in generators.wrong_settings(name, {"datasets": [{"name": "chain_sum"}]} if _mixes(name) else {}):
            raise ConfigError(f"--task {name}: {wrong}", hint="grpo-dist tasks lists them")
        mixed = {"datasets": [{"name": "chain_sum", "weight": 2}, {"name": "leg_counting", "weight": 1}]}
        settings: Changes = {("data", "generator"): mixed if _mixes(name) else {"size": 500}}
        return NamedTask("made and graded by reasoning-gym", name, GRADED, GYM, settings)
    known = [*TASKS, *(f"{generators.PREFIX}{one}" for one in generators.generators())]
    close = closest(name, known) or closest(f"{generators.PREFIX}{name}", known)
    raise ConfigError(
        f"--task: there is no task {name!r}", hint=f"did you mean {close}?" if close else "grpo-dist tasks lists them"
    )


def _mixes(name: str) -> bool:
    return name == generators.PREFIX + generators.COMPOSITE
