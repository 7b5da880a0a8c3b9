"""One optimizer step, part by part, with everything the estimate rests on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, NamedTuple

from grpo_dist.plan.hardware import LINKS
from grpo_dist.plan.timing import network
from grpo_dist.plan.timing.efficiencies import DEFAULTS, Assumption, Efficiencies
from grpo_dist.plan.timing.generation import Generation, generation_time, kv_pool, transformers_time
from grpo_dist.plan.timing.setup import Layout, Workload
from grpo_dist.plan.timing.training import Training, training_time


class Part(NamedTuple):
    """Seconds of a step that belong together; negative where two parts run at the same time."""

    name: str
    seconds: float
    how: str


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step on the whole layout."""

    workload: Workload
    layout: Layout
    efficiencies: Efficiencies
    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def tokens_per_second(self) -> float:
        """Prompt and completion tokens, padding left out."""
        return self.workload.tokens / self.seconds

    @property
    def gpu_hours(self) -> float:
        """Of one step, on the GPUs in use."""
        return self.seconds * self.layout.gpus / 3600

    def part(self, name: str) -> float:
        """Seconds of the part of that name; 0 when the step has none."""
        return next((part.seconds for part in self.parts if part.name == name), 0.0)

    def assumptions(self) -> tuple[Assumption, ...]:
        """Everything taken for granted: lengths, hardware, efficiency factors."""
        lengths, gpu = self.workload.lengths, self.layout.gpu
        return (
            Assumption("prompt tokens, mean", lengths.prompt, "from the data or as given"),
            Assumption(
                "completion tokens, mean", lengths.mean, "as given; `completions/mean_length` of an earlier run"
            ),
            Assumption("completion tokens, longest of a step", lengths.longest, "generation and padding run up to it"),
            Assumption(f"{gpu.name} FLOP/s ({gpu.dtype})", gpu.flops, gpu.source),
            Assumption(f"{gpu.name} memory bytes/s", gpu.bandwidth, gpu.source),
            Assumption(f"{self.layout.intra.name} bytes/s inside a node", self.layout.intra.bandwidth, "line rate"),
            Assumption(f"{self.layout.inter.name} bytes/s of a node", self.layout.inter.bandwidth, "line rate"),
            *self.efficiencies.assumptions(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "seconds_per_step": self.seconds,
            "tokens_per_step": self.workload.tokens,
            "tokens_per_second": self.tokens_per_second,
            "parts": [part._asdict() for part in self.parts],
            "assumptions": [asdict(assumption) for assumption in self.assumptions()],
        }


def step_time(workload: Workload, layout: Layout, efficiencies: Efficiencies = DEFAULTS) -> StepTime:
    """Seconds of one optimizer step.

    Generation and training take turns, colocated or not: completions have to be there before they are trained on, and
    the next ones come from the trained policy. Only `layout.overlap` hides the shorter of the two behind the other.

    Raises:
        PlanError: the KV cache cannot hold one sequence.
    """
    generated = generation(workload, layout, efficiencies)
    trained = training(workload, layout, efficiencies)
    share = 1 / workload.num_iterations
    scale = efficiencies.training_scale
    parts = [
        Part("generation", share * generated.seconds, generated.how),
        Part("scoring", share * trained.scoring_seconds, f"forwards without gradient: {workload.scoring_forwards}"),
        Part("training", trained.seconds, trained.how),
        Part("weight gathering", scale * _gather_seconds(workload, layout, trained, efficiencies), "ZeRO-3 or FSDP2"),
        Part("gradient sync", scale * _gradient_seconds(workload, layout, efficiencies), "all-reduce, once a step"),
        Part("sleep and wake", share * _sleep_seconds(workload, layout, efficiencies), "weights to the host and back"),
        Part("policy sync", share * scale * _sync_seconds(workload, layout, efficiencies), f"{layout.sync} weights"),
        Part("other", efficiencies.other_seconds, "rewards, logging, optimizer"),
    ]
    if layout.overlap and not layout.colocated:
        hidden = min(parts[0].seconds, parts[1].seconds + parts[2].seconds)
        parts.append(Part("overlapped", -hidden, "generation beside training"))
    return StepTime(workload, layout, efficiencies, tuple(part for part in parts if part.seconds))


def generation(workload: Workload, layout: Layout, efficiencies: Efficiencies = DEFAULTS) -> Generation:
    """Generation of one window's completions.

    Raises:
        PlanError: the KV cache cannot hold one sequence.
    """
    model, gpu = workload.architecture, layout.gpu
    if layout.backend == "transformers":
        return transformers_time(
            model,
            gpu,
            workload.lengths,
            completions=workload.completions,
            processes=layout.generating_gpus,
            lora=workload.lora,
            efficiencies=efficiencies,
        )
    pool = kv_pool(model, gpu, utilization=layout.gpu_memory_utilization, tensor_parallel=layout.tensor_parallel)
    return generation_time(
        model,
        gpu,
        workload.lengths,
        completions=workload.completions,
        num_generations=workload.num_generations,
        replicas=layout.replicas,
        kv_pool_bytes=pool if layout.kv_pool_bytes is None else layout.kv_pool_bytes,
        link=layout.intra,
        tensor_parallel=layout.tensor_parallel,
        max_num_seqs=layout.max_num_seqs,
        lora=workload.lora and layout.sync == "adapter",
        efficiencies=efficiencies,
    )


def training(workload: Workload, layout: Layout, efficiencies: Efficiencies = DEFAULTS) -> Training:
    """One training GPU's share of a step."""
    return training_time(
        workload.architecture,
        layout.gpu,
        workload.lengths,
        completions=ceil(workload.completions / layout.trainer_gpus),
        micro_batch=workload.micro_batch,
        lora=workload.lora,
        checkpointing=workload.gradient_checkpointing,
        scoring_forwards=workload.scoring_forwards,
        padding=workload.padding,
        eager=workload.eager,
        efficiencies=efficiencies,
    )


def _sleep_seconds(workload: Workload, layout: Layout, efficiencies: Efficiencies) -> float:
    if not layout.sleeps:
        return 0.0
    held = layout.gpu.dtype_bytes * workload.architecture.parameters() / layout.tensor_parallel
    return efficiencies.generation_scale * 2 * held / efficiencies.sleep_bytes_per_second


def _gather_seconds(workload: Workload, layout: Layout, trained: Training, efficiencies: Efficiencies) -> float:
    """Weights gathered for the forward and again for the backward (Rajbhandari et al. 2020, 7.2), and for scoring."""
    if not layout.partitioned:
        return 0.0
    size = layout.gpu.dtype_bytes * workload.architecture.parameters()
    once = network.gather_time(
        size, layout.trainer_gpus, layout.trainer_nodes, layout.intra, layout.inter, efficiencies
    )
    return trained.micro_steps * (2 + workload.scoring_forwards / workload.num_iterations) * once


def _gradient_seconds(workload: Workload, layout: Layout, efficiencies: Efficiencies) -> float:
    return network.gradient_sync_time(
        workload.trainable_parameters,
        layout.trainer_gpus,
        layout.trainer_nodes,
        layout.intra,
        layout.inter,
        efficiencies,
        bytes_per_gradient=4 if workload.lora else layout.gpu.dtype_bytes,
    )


def _sync_seconds(workload: Workload, layout: Layout, efficiencies: Efficiencies) -> float:
    """The new policy to those who generate; nothing to do where they are the training processes themselves."""
    if layout.backend == "transformers":
        return 0.0
    if workload.lora and layout.sync == "adapter":
        size = layout.gpu.dtype_bytes * workload.trainable_parameters
        link = layout.inter if layout.nodes > 1 else LINKS["pcie4"]
        return network.adapter_sync_time(size, layout.generating_nodes, link, efficiencies)
    size = layout.gpu.dtype_bytes * workload.architecture.parameters()
    between = layout.inter if layout.nodes > 1 else layout.intra
    return network.merged_sync_time(size, layout.gpu, None if layout.colocated else between, efficiencies)
