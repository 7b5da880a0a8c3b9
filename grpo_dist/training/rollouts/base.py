"""Replaces TRL's vLLM generation, so that only the adapter is sent to the engines.

TRL merges the adapter and sends the whole model. Here the adapter alone is sent, under a name derived from its content:
an engine that has the name has these weights, and one that does not reports so.

TRL builds its vLLM side from names in its own modules and takes no other: for a moment the name is another.

TRL 1.16 calls `_init_vllm()` at the end of `VLLMGeneration.__init__`, so what that needs is set before
`super().__init__`; it calls `sync_weights()` when a step has passed, and then `generate()`, on every process. If it
synced on the main process alone, the others would wait in `together` forever.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from types import ModuleType
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from trl.generation.vllm_generation import VLLMGeneration

from grpo_dist.errors import GrpoDistError
from grpo_dist.inference.client import Policy, Sampled
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.adapter import discard_others, gather_adapter, write_policy
from grpo_dist.training.models.prompts import renderer_of
from grpo_dist.training.rollouts.canary import Canary


class AdapterRollouts(VLLMGeneration):
    """Common part of our servers and engines: the sync, its canary, the seeds.

    Args:
        run: the run that the rollouts belong to.
        step: returns the number of optimizer steps done.
        dataset: rows the canary takes its prompts from.
    """

    def __init__(self, *args: Any, run: Run, step: Callable[[], int], dataset: Dataset, **kwargs: Any) -> None:
        self.run, self.step, self.dataset = run, step, dataset
        self.policy: Policy | None = None
        """The newest."""
        self.policies: dict[int, Policy] = {}
        """Optimizer steps → policy after them, as far as completions of this step or a later one come from it."""
        self.round = self.syncs = 0
        self.metrics: dict[str, float] = {}
        """`perf/*` values not yet reported."""
        super().__init__(*args, **kwargs)
        self.canary = Canary(
            self.model,
            renderer_of(run.config, self.processing_class),
            self.accelerator,
            dataset,
            dtype=run.config.model.dtype,
            max_tokens=self.max_completion_length,
        )
        self.unheard = True
        """No engine has answered the canary since one was last due."""

    @abstractmethod
    def _deliver(self, policy: Policy) -> None:
        """Load a policy on the engines and unload the previous one."""

    def policy_for(self, step: int) -> Policy:
        """The policy that the completions of an optimizer step come from."""
        return self.policies[max(0, step - self.run.config.rollout.max_staleness)]

    def policies_before(self, step: int) -> list[Policy]:
        """The policies of earlier steps that completions of this step or later ones come from."""
        per_window, staleness = self.run.config.grpo.num_iterations, self.run.config.rollout.max_staleness
        generates = -(-step // per_window) * per_window
        return [policy for done, policy in self.policies.items() if generates - staleness <= done < step]

    def release(self) -> None:
        """No more generation follows: the engines may unload the adapters."""

    @abstractmethod
    def _canary_answers(self) -> dict[str, list[Sampled]]:
        """Answers to the canary's prompts by engine name, from the engines this process uses or holds."""

    def sync_weights(self) -> None:
        """Send the current adapter to the engines; every process must call it."""
        began = time.perf_counter()
        self.policy = self._share()
        needed = [*self.policies_before(self.policy.step), self.policy]
        self.policies = {policy.step: policy for policy in needed}
        together(self._deliver, self.policy)
        if self.accelerator.is_main_process:
            discard_others(self.run.directory.policies, needed)
        self.round, self.syncs = 0, self.syncs + 1
        self.metrics = {
            "perf/sync_seconds": time.perf_counter() - began,
            "perf/sync_bytes": float(self.policy.size),
        }
        self._ask_canary()

    def take_metrics(self) -> dict[str, float]:
        """`perf/*` of the last sync, if there was one since the last call, and of the last generation."""
        taken, self.metrics = self.metrics, {}
        return {"perf/policy_version": float(self.policy_for(self.step()).step), **taken}

    def next_seed(self, prompts: int) -> int:
        """Seed of this process's first completion in the next round of this step."""
        seed = self.seed_of(self.step(), self.round, prompts)
        self.round += 1
        return seed

    def seed_of(self, step: int, round_: int, prompts: int) -> int:
        """Seed of this process's first completion in a round; the others count up from it.

        A completion's seed depends on the run's seed, the step and its place in the batch, not on the process that
        samples it.
        """
        seed = self.run.config.grpo.seed
        digest = sha256(f"{seed}/{step}/{round_}".encode()).digest()
        return int.from_bytes(digest[:6]) + self.accelerator.process_index * prompts

    def _share(self) -> Policy:
        """Write the adapter once, and announce it to every process."""
        # 16-bit models compute their adapters in the same dtype, so exactly what is sent is used.
        tensors = gather_adapter(self.model, self.accelerator, getattr(torch, self.run.config.model.dtype))
        policies, written = self.run.directory.policies, []

        def write() -> None:
            if self.accelerator.is_main_process:
                written.append(write_policy(self.model, tensors, self.step(), policies))

        together(write)
        return broadcast_object_list(written or [None])[0]

    def _ask_canary(self) -> None:
        """After the first sync, after the first with trained weights, and every canary_steps."""
        every = self.run.config.rollout.canary_steps
        self.unheard = bool(every) and (self.unheard or self.syncs <= 2 or self.policy.step % every == 0)
        if not self.unheard:
            return
        began = time.perf_counter()
        answers: list[dict[str, list[Sampled]]] = []
        together(lambda: answers.append(self._canary_answers()))
        everyone = {name: sampled for one in gather_object(answers) for name, sampled in one.items()}
        scores = self.canary.score(everyone)

        def check() -> None:
            self.metrics["perf/canary_difference"] = self.canary.check(scores, self.policy.name)

        if scores:
            together(check)
            self.unheard = False
        self.metrics["perf/canary_seconds"] = time.perf_counter() - began


def together(act: Callable[..., None], *args: Any) -> None:
    """Run it on every process; an error on one is raised on all, which would otherwise wait forever."""
    failure = None
    try:
        act(*args)
    except GrpoDistError as error:
        failure = error
    failures = [error for error in gather_object([failure]) if error is not None]
    if failures:
        raise failures[0]


@contextmanager
def replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Context manager in which `module.name` is `value`."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
