"""TRL's own weight sync (the adapter merged, the whole model sent), for runs that generate more than they train.

vLLM serves merged weights faster than an adapter beside them. A server needs CUDA: the weights are sent by NCCL. Under
Unsloth nothing is sent: training and its vLLM engine share the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from datasets import Dataset
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from grpo_dist.inference.registry import read_key, read_replicas
from grpo_dist.training.common.process import Run
from grpo_dist.training.rollouts.base import replaced


class MergedRollouts(VLLMGeneration):
    """`VLLMGeneration` on the single server of the run, which requires its key, or on an engine in each process."""

    def __init__(self, *args: Any, run: Run, step: Callable[[], int], dataset: Dataset, **keywords: Any) -> None:
        self.step = step
        self.version = 0
        self.metrics: dict[str, float] = {}
        # `VLLMGeneration.__init__` (TRL 1.16) makes whatever its module calls VLLMClient. If it looks elsewhere,
        # requests carry no key, and the server answers 401.
        client = VLLMClient
        if run.plan.topology.serves:
            registry = run.directory.replicas
            keywords["server_base_url"] = read_replicas(registry)[0].url
            client = partial(KeyedClient, key=read_key(registry))
        with replaced(vllm_generation, "VLLMClient", client):
            super().__init__(*args, **keywords)
        self.bytes = sum(
            parameter.numel() * parameter.element_size()
            for name, parameter in self.model.named_parameters()
            if "lora_" not in name
        )

    def sync_weights(self) -> None:
        began = time.perf_counter()
        super().sync_weights()  # TRL 1.16 returns when the engine has the weights; else perf/sync_seconds is too small
        self.version = self.step()
        self.metrics = {"perf/sync_seconds": time.perf_counter() - began, "perf/sync_bytes": float(self.bytes)}

    def release(self) -> None:
        """The server ends with the run."""

    def take_metrics(self) -> dict[str, float]:
        """`perf/*` of the last sync, if there was one since the last call."""
        taken, self.metrics = self.metrics, {}
        return {"perf/policy_version": float(self.version), **taken}


class KeyedClient(VLLMClient):
    """TRL's client with the server's key. In TRL 1.16 requests go through `session`, the first one through `_get`."""

    def __init__(self, *args: Any, key: str, **keywords: Any) -> None:
        self.authorization = {"Authorization": f"Bearer {key}"}
        super().__init__(*args, **keywords)
        self.session.headers.update(self.authorization)

    def _get(self, url: str, **keywords: Any) -> dict[str, Any]:
        return super()._get(
            url, headers=self.authorization, **keywords
        )  # the first request comes before our session is in place


class SharedRollouts(MergedRollouts):
    """TRL's colocated generation, as patched by Unsloth to use its own engine. There is nothing to sync."""

    def take_metrics(self) -> dict[str, float]:
        return {"perf/policy_version": float(self.step())}
