"""The comparison split over the processes of a run: each answers its part of the problems.

The processes exchange answers through files in the run directory and nothing else, so one may take an hour longer than
another, and the next attempt does not repeat a finished part.

Where engines generated in training, each process starts a vLLM engine of its own after those have stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from grpo_dist.inference.client import Policy, Prompt, Sampled
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.inputs import SERVER_UTILIZATION
from grpo_dist.plan.memory.vllm import RolloutSetup, served_rank
from grpo_dist.progress import say_passing
from grpo_dist.run.directory import write_json
from grpo_dist.training.common.process import Run
from grpo_dist.training.models.generate import Answerer, Completion, Message, Sampling
from grpo_dist.training.models.load import model_path
from grpo_dist.training.models.served import ServedModel, served_models

POLL_SECONDS = 0.5
PROGRESS_SECONDS = 2.0
LAUNCHED = ("TORCHELASTIC_", "ROLE_", "GROUP_", "MASTER_", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "LOCAL_RANK", "RANK")
"""Prefixes of the variables torchrun sets: with them, an engine of one process would wait for the others."""


@dataclass(frozen=True)
class Part:
    """The problems this process answers: every count-th, starting at the index-th."""

    index: int
    count: int


def take_part(plan: LaunchPlan) -> Part | None:
    """The part of this process, which from here on sees only the GPUs of its own engine and no other process.

    None: another process of the same engine answers for it.
    """
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local, size = int(os.environ.get("LOCAL_RANK", 0)), plan.topology.tensor_parallel_size
    engines = size if plan.topology.colocated else 1
    if not plan.topology.on_cpu and processes > 1:
        visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[local : local + engines])
    for name in [name for name in os.environ if name.startswith(LAUNCHED)]:
        del os.environ[name]
    return Part(rank // engines, max(1, processes // engines)) if rank % engines == 0 else None


@dataclass(frozen=True)
class Shared:
    """A model of which each process has a copy. The first process gets all answers, the others only their own."""

    own: Answerer
    part: Part
    directory: Path
    seed: int

    @property
    def name(self) -> str:
        return self.own.name

    def answer(self, prompts: Sequence[list[Message]], how: Sampling) -> Iterator[list[Completion]]:
        index, count = self.part.index, self.part.count
        files = [self._file(prompts[other::count], how, other) for other in range(count)]
        if not files[index].exists():
            torch.manual_seed(self.seed + index)
            write_json(files[index], self._answered(prompts[index::count], how))
        if index > 0:
            yield from _read(files[index])
            return
        parts = [_read(_wait_for(file)) for file in files]
        for place in range(len(prompts)):
            yield parts[place % count][place // count]

    def _answered(self, prompts: Sequence[list[Message]], how: Sampling) -> list[list[dict[str, object]]]:
        groups, shown = [], time.monotonic()
        for group in self.own.answer(prompts, how):
            groups.append([asdict(replace(one, by=f"process {self.part.index}")) for one in group])
            if self.part.index == 0 and time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                say_passing(f"comparing: {self.name}, {len(groups)} of {len(prompts)} problems in each process")
        return groups

    def _file(self, prompts: Sequence[list[Message]], how: Sampling, index: int) -> Path:
        """Named by a digest of the request, so that answers to a different request are never reused."""
        asked = json.dumps([self.name, asdict(how), self.part.count, self.seed, list(prompts)])
        return self.directory / f"{sha256(asked.encode()).hexdigest()[:16]}-{index}.json"


def _wait_for(file: Path) -> Path:
    while not file.exists():
        time.sleep(POLL_SECONDS)
    return file


def _read(file: Path) -> list[list[Completion]]:
    return [[Completion(**one) for one in group] for group in json.loads(file.read_text(encoding="utf-8"))]


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
    return plan.gpu_memory_utilization or ON_CPU_SHARE if plan.topology.on_cpu else SERVER_UTILIZATION


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
            **(ON_CPU if plan.topology.on_cpu else {}),
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
