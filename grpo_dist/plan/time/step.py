"""One optimizer step, part by part, with every assumption; and how many GPUs train and how many generate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, NamedTuple

from grpo_dist.errors import PlanError
from grpo_dist.plan.specs.hardware import LINKS
from grpo_dist.plan.time import network
from grpo_dist.plan.time.efficiencies import DEFAULTS, Assumption, Efficiencies
from grpo_dist.plan.time.generation import Generation, generation_time, kv_pool, transformers_time
from grpo_dist.plan.time.inputs import Layout, Workload
from grpo_dist.plan.time.training import Training, training_time


class StepPart(NamedTuple):
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
    parts: tuple[StepPart, ...]

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
    the next ones come from the trained policy. With `max_staleness` they run at the same time, and the longer one
    counts; the policy sync does not overlap.

    Raises:
        PlanError: the KV cache cannot hold one sequence.
    """
    generated = _steady_generation(workload, layout, efficiencies)
    trained = training(workload, layout, efficiencies)
    share = 1 / workload.num_iterations
    scale = efficiencies.training_scale
    parts = [
        StepPart("generation", share * generated.seconds, generated.how),
        StepPart("scoring", share * trained.scoring_seconds, f"forwards without gradient: {workload.scoring_forwards}"),
        StepPart("training", trained.seconds, trained.how),
        StepPart(
            "weight gathering", scale * _gather_seconds(workload, layout, trained, efficiencies), "ZeRO-3 or FSDP2"
        ),
        StepPart("gradient sync", scale * _gradient_seconds(workload, layout, efficiencies), "all-reduce, once a step"),
        StepPart(
            "sleep and wake", share * _sleep_seconds(workload, layout, efficiencies), "weights to the host and back"
        ),
        StepPart(
            "policy sync",
            share * scale * _sync_seconds(workload, layout, efficiencies),
            f"{'adapter' if layout.syncs_adapter else 'merged'} weights",
        ),
        StepPart("other", efficiencies.other_seconds, "rewards, logging, optimizer"),
    ]
    if layout.max_staleness:
        written, *others = (part.seconds for part in parts if part.name != "policy sync")
        hidden = min(written, sum(others))
        parts.append(StepPart("overlap", -hidden, f"generation is {layout.max_staleness} ahead of training"))
    return StepTime(workload, layout, efficiencies, tuple(part for part in parts if part.seconds))


def _steady_generation(workload: Workload, layout: Layout, efficiencies: Efficiencies) -> Generation:
    """Of one window, among as many as are written at the same time: a slot that the longest completions of one leave
    is taken by the next."""
    together = max(1, ceil(layout.max_staleness / workload.num_iterations))
    of_all = generation(replace(workload, prompts_per_step=together * workload.prompts_per_step), layout, efficiencies)
    return replace(
        of_all,
        seconds=of_all.seconds / together,
        prefill_seconds=of_all.prefill_seconds / together,
        decode_seconds=of_all.decode_seconds / together,
        steps=of_all.steps / together,
        completions=ceil(of_all.completions / together),
    )


def generation(workload: Workload, layout: Layout, efficiencies: Efficiencies = DEFAULTS) -> Generation:
    """Generation of one window's completions.

    Raises:
        PlanError: the KV cache cannot hold one sequence.
    """
    model, gpu = workload.architecture, layout.gpu
    if not layout.uses_vllm:
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
        lora=workload.lora and layout.syncs_adapter,
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
    """Sending the new policy to the generating side; 0 if the training processes generate themselves."""
    if not layout.uses_vllm:
        return 0.0
    if workload.lora and layout.syncs_adapter:
        size = layout.gpu.dtype_bytes * workload.trainable_parameters
        link = layout.inter if layout.nodes > 1 else LINKS["pcie4"]
        return network.adapter_sync_time(size, layout.generating_nodes, link, efficiencies)
    size = layout.gpu.dtype_bytes * workload.architecture.parameters()
    between = layout.inter if layout.nodes > 1 else layout.intra
    return network.merged_sync_time(size, layout.gpu, None if layout.colocated else between, efficiencies)


@dataclass(frozen=True)
class Balance:
    """The fastest split of the GPUs between training and generation, and why."""

    best: StepTime
    candidates: tuple[StepTime, ...]
    """All splits that can run, fastest first."""
    reason: str

    @property
    def layout(self) -> Layout:
        return self.best.layout


def balance(
    workload: Workload,
    layout: Layout,
    efficiencies: Efficiencies = DEFAULTS,
) -> Balance:
    """The split of `layout`'s GPUs between training and generation with the shortest step.

    Splits are whole nodes that generate (GPUs that make up no replica are idle), or the same number of GPUs on every
    node, as many as divide the completions evenly over the training GPUs.

    Args:
        layout: its training and generating GPUs are replaced; the rest is kept.

    Raises:
        PlanError: no split can run.
    """
    found, refused = [], None
    for split in _splits(layout):
        if workload.completions % split.trainer_gpus:
            continue
        try:
            found.append(step_time(workload, split, efficiencies))
        except PlanError as error:
            refused = error
    if not found:
        raise refused or _indivisible(workload, layout)
    found.sort(key=lambda time: (time.seconds, time.layout.rollout_gpus))
    return Balance(found[0], tuple(found), _reason(found))


def _splits(layout: Layout) -> Iterator[Layout]:
    """A replica never spans nodes: its GPUs sum activations twice a layer."""
    nodes, gpus, replica = layout.nodes, layout.gpus_per_node, layout.tensor_parallel
    held = gpus // replica * replica
    whole_nodes = {((nodes - count) * gpus, count * held) for count in range(1, nodes) if held}
    of_each_node = {(nodes * (gpus - count), nodes * count) for count in range(replica, gpus, replica)}
    for trainers, rollout in sorted(whole_nodes | of_each_node, key=lambda split: split[1]):
        yield replace(layout, trainer_gpus=trainers, rollout_gpus=rollout)


def _indivisible(workload: Workload, layout: Layout) -> PlanError:
    return PlanError(
        f"{layout.nodes} nodes × {layout.gpus_per_node} GPUs cannot be shared out between training and replicas of "
        f"{layout.tensor_parallel} GPUs so that {workload.completions} completions divide over the training GPUs",
        hint="take completions per step that are a multiple of the GPUs left for training, more GPUs, or colocate",
    )


def _reason(found: list[StepTime]) -> str:
    """One sentence with the numbers that decide."""
    best = found[0]
    other = next(iter(found[1:]), None)
    text = f"{_name(best.layout)}: {_numbers(best)}"
    if other is None:
        return text + "; nothing else can run"
    return f"{text}; {_name(other.layout)} would take {_numbers(other)}, {_because(best, other)}"


def _because(best: StepTime, other: StepTime) -> str:
    names = [part.name for part in (*best.parts, *other.parts) if part.seconds > 0 and part.name != "scoring"]
    name = max(names, key=lambda name: _seconds(other, name) - _seconds(best, name))
    return f"with {_seconds(other, name):.1f} s of {name} instead of {_seconds(best, name):.1f} s"


def _name(layout: Layout) -> str:
    return f"{layout.trainer_gpus} GPUs train, {layout.rollout_gpus} generate"


def _numbers(time: StepTime) -> str:
    generation, training = _seconds(time, "generation"), _seconds(time, "training")
    return f"{time.seconds:.1f} s per step (generation {generation:.1f} s, training {training:.1f} s)"


def _seconds(time: StepTime, name: str) -> float:
    """Seconds of a part; scoring counts as training."""
    return time.part(name) + (time.part("scoring") if name == "training" else 0)
