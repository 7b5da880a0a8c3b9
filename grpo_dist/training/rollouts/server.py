"""Generation on the run's pool of vLLM servers: every training process requests its own share.

With `rollout.max_staleness` above 0 the servers write the batches of later steps while a step is trained. A batch comes
from the policy so many steps before its own, whatever the timing, so that a run is the same every time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import groupby
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any, NamedTuple

from accelerate.utils import broadcast_object_list

from grpo_dist.errors import RolloutError
from grpo_dist.inference.client import Policy, Prompt, Sampled
from grpo_dist.inference.pool import Pool
from grpo_dist.inference.registry import wait_until_started
from grpo_dist.training.models.adapter import copy_policies, policies_in
from grpo_dist.training.models.prompts import end_tokens
from grpo_dist.training.models.served import MOST_PER_REQUEST, pool_of
from grpo_dist.training.rollouts.base import AdapterRollouts, together


class ServerRollouts(AdapterRollouts):
    """Rollouts of the servers that are registered in the run directory."""

    def _init_vllm(self) -> None:
        wait_until_started(self.run.directory.replicas)
        self.pool = self._pool()
        self.ahead: dict[int, BatchAhead] = {}
        """Optimizer step → its batch, while the servers write it."""
        self.free = []
        """Pools for one batch each: a pool knows of its own work only."""
        self.utilization = Utilization(self.pool)
        # TRL's own `_init_vllm` would open an NCCL group with a single server. Of `vllm_client` the trainer of TRL 1.16
        # calls only `get_server_info`, for this one setting, with which every server was started. If it calls more,
        # that is an AttributeError at the start.
        info = {"model_config": {"logprobs_mode": "processed_logprobs"}}
        self.vllm_client = SimpleNamespace(get_server_info=lambda: info)

    def generate(
        self, prompts: list[list[int]], images: None, num_generations: int, profiler: Any = None
    ) -> tuple[list[list[int]], list[list[int]], list[list[list[float]]], None]:
        """Completions of this process's prompts, one for each time a prompt is listed.

        TRL 1.16 passes every argument by name, repeats each prompt `num_generations` times, and uses the first
        log-probability of each token. If it stops repeating prompts, groups have too few completions.

        Returns:
            prompt ids, completion ids, log-probabilities of the sampled tokens (each a list of one), None.
        """
        step, began = self.step(), time.perf_counter()
        requests = list(_requests(prompts, self.next_seed(len(prompts))))
        completions: list[Sampled] = []

        def ask() -> None:
            for group in self._completions(step, requests):
                completions.extend(group)

        together(ask)
        self.metrics |= {
            "perf/wait_seconds": time.perf_counter() - began,
            "perf/staleness": float(step - self.policy_for(step).step),
            "perf/batches_in_flight": float(len(self.ahead)),
        }
        if self.accelerator.is_main_process:
            self.metrics |= self.utilization.measure(step)
        logprobs = [[[value] for value in one.logprobs] for one in completions]
        return prompts, [one.token_ids for one in completions], logprobs, None

    def begin(self, step: int, prompts: list[list[int]]) -> None:
        """Let the servers write the completions of this step or a later one, for which `generate` then waits.

        Args:
            prompts: as `generate` will get them first in that step.
        """
        requests = list(_requests(prompts, self.seed_of(step, 0, len(prompts))))
        pool = self.free.pop(0) if self.free else self._pool()
        self.ahead[step] = BatchAhead(pool, requests, pool.begin(requests, self.policy_for(step), self._sampling()))

    def restore(self, checkpoint: Path) -> None:
        """Take up the earlier policies that a checkpoint holds for the next batches; every process must call it."""
        found: list[Policy] = []

        def copy() -> None:
            if self.accelerator.is_main_process:
                found.extend(copy_policies(policies_in(checkpoint), self.run.directory.policies))

        together(copy)
        self.policies = {policy.step: policy for policy in broadcast_object_list([found])[0]}

    def cancel(self) -> None:
        """End the requests for all batches that the servers are writing."""
        for batch in self.ahead.values():
            batch.result.cancel()

    def _completions(self, step: int, requests: list[Prompt]) -> list[list[Sampled]]:
        batch = self.ahead.pop(step, None)
        if batch is None:
            return self.pool.generate(requests, self.policy_for(step), self._sampling())
        if batch.requests != requests:
            raise RolloutError(
                f"the completions written ahead for step {step + 1} belong to other prompts: the trainer reads the "
                "data in another order than was expected",
                hint="begin a run with --set rollout.max_staleness=0, and report it with its config.yaml",
            )
        found, self.metrics["perf/generation_seconds"] = batch.result.result()
        self.free.append(batch.pool)
        return found

    def _pool(self) -> Pool:
        here = self.accelerator
        return pool_of(self.run, rank=here.process_index, processes=here.num_processes)

    def _sampling(self) -> dict[str, Any]:
        regex = self.structured_outputs_regex
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p or 0.0,
            "repetition_penalty": self.repetition_penalty,
            "max_tokens": self.max_completion_length,
            "stop_token_ids": end_tokens(self.model.generation_config, self.processing_class),
            **({"structured_outputs": {"regex": regex}} if regex else {}),
            **self.generation_kwargs,
        }

    def release(self) -> None:
        if self.accelerator.is_main_process and not self.ahead:
            self.pool.unload_others(())

    def _deliver(self, policy: Policy) -> None:
        if self.accelerator.is_main_process:
            self.pool.load(policy)
            self.pool.unload_others(self.policies.values())
            self.utilization.begin()

    def _canary_answers(self) -> dict[str, list[Sampled]]:
        if not self.accelerator.is_main_process:
            return {}
        answers = self.pool.ask_all(self.canary.prompts, self.policy, self.canary.sampling)
        return {f"rollout server {name}": sampled for name, sampled in answers.items()}


class BatchAhead(NamedTuple):
    """A batch that the servers write while another one is trained on."""

    pool: Pool
    requests: list[Prompt]
    result: Future[tuple[list[list[Sampled]], float]]


class Utilization:
    """How much of the time the servers had work."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.step: int | None = None
        self.since = self.latest = UtilizationSample(0.0, {})

    def begin(self) -> None:
        """Count from now on, if nothing was counted yet."""
        if not self.latest.busy:
            self.latest = self._look()

    def measure(self, step: int) -> dict[str, float]:
        """Share of the time, 0 to 1, since the last generation for a different step; a mean over the servers.

        It covers all generations of a step and the training before them. A server restarted meanwhile counts with its
        work since then; one that does not answer is left out.
        """
        if step != self.step:
            self.step, self.since = step, self.latest
        self.latest = self._look()
        seconds = self.latest.time - self.since.time
        shares = [(busy - self.since.busy.get(server, 0.0)) / seconds for server, busy in self.latest.busy.items()]
        return {"perf/replica_utilization": min(1.0, fmean(shares))} if shares else {}

    def _look(self) -> UtilizationSample:
        status = self.pool.status()
        busy = {(name, one["incarnation"]): one["busy_seconds"] for name, one in status.items()}
        return UtilizationSample(time.monotonic(), busy)


class UtilizationSample(NamedTuple):
    """The state that the servers report."""

    time: float
    """Seconds, monotonic clock."""
    busy: dict[tuple[str, int], float]
    """(name, incarnation) → seconds of work since it was started."""


def _requests(prompts: Sequence[list[int]], seed: int) -> Iterator[Prompt]:
    """Equal consecutive prompts form one request, of MOST_PER_REQUEST completions at most."""
    for ids, group in groupby(prompts):
        left = len(list(group))
        while left:
            n = min(left, MOST_PER_REQUEST)
            yield Prompt(tuple(ids), n, seed)
            seed, left = seed + n, left - n
