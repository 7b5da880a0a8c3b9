"""The comparison on separate vLLM engines: one in each process, started after those of training have stopped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from grpo_dist.inference.client import Policy, Prompt, Sampled
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.inputs import SERVER_UTILIZATION
from grpo_dist.plan.memory.vllm import RolloutSetup, served_rank
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.load import model_path
from grpo_dist.training.models.served import ServedModel, served_models

ON_CPU_SHARE = 0.3
"""Fraction of a machine's memory, as for TRL's engines."""
PORTION = 4 * RolloutSetup.max_num_seqs
"""Completions requested together."""


def engine_models(run: Run) -> tuple[ServedModel, ServedModel]:
    """Base and trained model, side by side on one engine of this process."""
    base, trained = served_models(run, EnginePool(run))
    return replace(base, at_once=PORTION), replace(trained, at_once=PORTION)


def _share(plan: LaunchPlan) -> float:
    """Fraction of a GPU that nothing else uses any more; on CPU, of the machine's memory, as in training."""
    return SERVER_UTILIZATION if plan.topology.device == "cuda" else plan.gpu_memory_utilization or ON_CPU_SHARE


class EnginePool:
    """One engine with the interface of a pool of servers."""

    def __init__(self, run: Run) -> None:
        # `vllm.envs` (vLLM 0.31) reads it when an engine is made. Without it the engine may outlive this process.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, whose end it then shares
        from vllm import LLM

        from grpo_dist.training.rollouts.colocate import ON_CPU

        config, plan = run.config, run.plan
        self.requests: dict[str, Any] = {}
        self.llm = LLM(
            model=model_path(run),
            tokenizer=str(run.directory.tokenizer),
            revision=config.model.revision,
            trust_remote_code=config.model.trust_remote_code,
            dtype=config.model.dtype,
            seed=config.grpo.seed,
            max_model_len=plan.max_model_len,
            max_num_seqs=RolloutSetup.max_num_seqs,
            gpu_memory_utilization=_share(plan),
            tensor_parallel_size=plan.topology.tensor_parallel_size,
            generation_config="vllm",
            enable_lora=True,
            max_lora_rank=served_rank(config.lora.r),
            max_loras=1,
            **(ON_CPU if plan.topology.device == "cpu" else {}),
        )

    def load(self, policy: Policy) -> None:
        """Make the adapter available under the policy's name."""
        from vllm.lora.request import LoRARequest

        # vLLM 0.31 tells adapters apart by the number; with one used twice, `generate` would answer with the older one.
        self.requests[policy.name] = LoRARequest(policy.name, 1 + len(self.requests), str(policy.directory))

    def generate(
        self, prompts: Iterable[Prompt], policy: Policy | None, sampling: dict[str, Any]
    ) -> Iterator[list[Sampled]]:
        """The completions of each prompt, in order."""
        from vllm import SamplingParams

        asked = list(prompts)
        outputs = self.llm.generate(
            [{"prompt_token_ids": list(prompt.token_ids)} for prompt in asked],
            sampling_params=[SamplingParams(**sampling, n=prompt.n, seed=prompt.seed) for prompt in asked],
            use_tqdm=False,
            lora_request=None if policy is None else self.requests[policy.name],
        )
        for output in outputs:
            yield [Sampled(list(one.token_ids), [], one.finish_reason == "length") for one in output.outputs]
