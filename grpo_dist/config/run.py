"""The whole of what a user states."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from grpo_dist.config.cluster import ClusterSection, DistributedSection, RolloutSection
from grpo_dist.config.data import DataSection
from grpo_dist.config.evaluation import EvaluationSection
from grpo_dist.config.generation_fields import NAMES, OWN_IN_BOTH, SAME, TAKEN
from grpo_dist.config.grpo import GrpoSection
from grpo_dist.config.model import LoraSection, ModelSection, WarmStartSection
from grpo_dist.config.rewards import RewardsSection
from grpo_dist.config.section import Conflict, Section

Tracker = Literal["trackio", "tensorboard", "wandb"]


def as_trackers(value: Any) -> Any:
    """`none` or nothing → no tracker; one name → a list of one; anything else as it is."""
    if value in (None, "none"):
        return ()
    return (value,) if isinstance(value, str) else value


class RunConfig(Section):
    """One run: what to train, and what there is to train it on. Nothing is derived here."""

    model: ModelSection
    lora: LoraSection = LoraSection()
    data: DataSection
    rewards: RewardsSection = RewardsSection()
    warm_start: WarmStartSection | None = None
    """Supervised warm start for the format; null goes straight to GRPO."""
    grpo: GrpoSection = GrpoSection()
    rollout: RolloutSection = RolloutSection()
    distributed: DistributedSection = DistributedSection()
    cluster: ClusterSection = ClusterSection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: Annotated[tuple[Tracker, ...], BeforeValidator(as_trackers)] = ()
    """Experiment trackers that receive the metrics beside `metrics.jsonl`; `none` for none."""

    def conflicts(self) -> Iterator[Conflict]:
        if self.model.dtype == "float16" and self.cluster.gpus_per_node == 0:
            yield ("model", "dtype"), "float16 needs a GPU; set float32 or bfloat16, or cluster.gpus_per_node=1"
        yield from self._generation_conflicts()
        room, completion = self.model.max_length, self.grpo.max_completion_length
        prompt = self.data.max_prompt_length or 1
        if room is not None and prompt + completion > room:
            longest = f"data.max_prompt_length {prompt}" if prompt > 1 else "any prompt"
            both = f"{longest} and grpo.max_completion_length {completion}"
            yield ("model", "max_length"), f"{room} tokens do not hold {both}; set at least {prompt + completion}"

    def _generation_conflicts(self) -> Iterator[Conflict]:
        """Names that who generates does not know: vLLM refuses them in the first step, Transformers never."""
        backend = self.rollout.backend
        for name in self.generation_kwargs:
            if name not in TAKEN[backend] and name not in OWN_IN_BOTH:
                yield ("grpo", "generation_kwargs", name), _unknown_to(backend, name)

    @property
    def generation_kwargs(self) -> dict[str, Any]:
        """What is stated of generation beside the fields of `grpo:`, in the words of who generates."""
        return (self.grpo.model_extra or {}).get("generation_kwargs") or {}


def _unknown_to(backend: str, name: str) -> str:
    same = {**SAME, **{theirs: ours for ours, theirs in SAME.items()}}.get(name)
    other = next((other for other, names in TAKEN.items() if name in names), None)
    if same in TAKEN[backend]:
        return f"{NAMES[backend]}, which generates here, calls it {same}; write that"
    if other is not None:
        only = f"{NAMES[other]} has it, and {NAMES[backend]} generates here"
        return f"{only}; remove it, or set rollout.backend: {other}"
    close = get_close_matches(name, (*TAKEN[backend], *OWN_IN_BOTH), n=1)
    if close and close[0] in OWN_IN_BOTH:
        return f"{NAMES[backend]} has no such setting; if {close[0]} is meant: {OWN_IN_BOTH[close[0]]}"
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(TAKEN[backend]))}"
    return f"{NAMES[backend]} has no such setting; {hint}"
