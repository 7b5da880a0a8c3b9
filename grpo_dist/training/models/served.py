"""The models of a run as its rollout servers hold them: base and adapter side by side, with nothing loaded here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from grpo_dist.inference.client import Policy, Prompt, Sampled
from grpo_dist.inference.pool import Pool
from grpo_dist.plan.memory.vllm import RolloutSetup
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.adapter import DIGITS, WEIGHTS
from grpo_dist.training.models.generate import Completion, Message, Sampling
from grpo_dist.training.models.load import declared_generation
from grpo_dist.training.models.prompts import PromptRenderer, end_tokens, renderer_in


@dataclass(frozen=True)
class ServedModel:
    """Answers through the pool; without a policy the base model's."""

    name: str
    pool: Pool
    policy: Policy | None
    renderer: PromptRenderer
    ends: list[int]
    seed: int
    at_once: int
    """Completions requested together, in portions of this size: enough that no server idles."""

    def answer(self, prompts: Sequence[list[Message]], how: Sampling) -> Iterator[list[Completion]]:
        ids = [self.renderer.ids(prompt) for prompt in prompts]
        asked = [
            Prompt(tuple(one), how.num_samples, self.seed + place * how.num_samples) for place, one in enumerate(ids)
        ]
        stride = max(1, self.at_once // how.num_samples)
        for start in range(0, len(asked), stride):
            for group in self.pool.generate(asked[start : start + stride], self.policy, self._sampling(how)):
                yield [self._completion(sampled) for sampled in group]

    def _sampling(self, how: Sampling) -> dict[str, Any]:
        drawn = {"temperature": 0.0}
        if how.temperature is not None:
            drawn = {
                "temperature": how.temperature,
                "top_p": how.top_p,
                "top_k": how.top_k,
                "min_p": how.min_p or 0.0,
                "repetition_penalty": how.repetition_penalty,
            }
        return {**drawn, "max_tokens": how.max_tokens, "stop_token_ids": self.ends, **how.further}

    def _completion(self, sampled: Sampled) -> Completion:
        text = self.renderer.tokenizer.decode(sampled.token_ids, skip_special_tokens=True)
        done = Completion(text, len(sampled.token_ids), sampled.clipped)
        return replace(done, by=f"server {sampled.server}") if sampled.server else done


def served_models(run: Run, pool: Pool) -> tuple[ServedModel, ServedModel]:
    """Base and trained model; the servers load the run's adapter here.

    Raises:
        RolloutsGone, RolloutError: the servers do not accept it.
    """
    trained = served_model("trained model", run, pool, run.directory.adapter)
    return served_model("base model", run, pool), trained


def served_model(name: str, run: Run, pool: Pool, adapter: Path | None = None) -> ServedModel:
    """The base, or the base with an adapter, which the servers load here.

    Raises:
        RolloutsGone, RolloutError: the servers do not accept it.
    """
    renderer = renderer_in(run)
    policy = None
    if adapter is not None:
        digest = sha256((adapter / WEIGHTS).read_bytes()).hexdigest()[:DIGITS]
        policy = Policy(f"{name.partition(' ')[0]}-{digest}", 0, adapter.absolute(), 0)
        pool.load(policy)
    ends = end_tokens(declared_generation(run), renderer.tokenizer)
    at_once = max(run.config.evaluation.batch_size, RolloutSetup.max_num_seqs * len(run.plan.topology.replicas))
    return ServedModel(name, pool, policy, renderer, ends, run.config.grpo.seed, at_once)


MOST_PER_REQUEST = 16
"""Completions of one request. A larger group is split into several, so that no single server has to do all of it."""


def has_pool(run: Run) -> bool:
    """Whether servers hold the base model with adapters beside it; merged weights would replace the base model."""
    return bool(run.plan.topology.replicas) and run.config.rollout.syncs_adapter


def pool_of(run: Run, *, rank: int = 0, processes: int = 1) -> Pool:
    """The run's servers, for one of `processes` processes that use them at the same time."""
    rollout = run.config.rollout
    return Pool(
        run.directory.replicas,
        rollout.timeouts,
        rank=rank,
        completions_per_replica=max(1, RolloutSetup.max_num_seqs // processes),
        push=rollout.transport == "push",
    )
