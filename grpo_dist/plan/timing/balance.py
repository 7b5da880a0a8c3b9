"""How many GPUs train and how many generate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from grpo_dist.errors import PlanError
from grpo_dist.plan.timing.efficiencies import DEFAULTS, Efficiencies
from grpo_dist.plan.timing.setup import Layout, Workload
from grpo_dist.plan.timing.step import StepTime, step_time


@dataclass(frozen=True)
class Balance:
    """The fastest way to share the GPUs out, and why."""

    best: StepTime
    candidates: tuple[StepTime, ...]
    """All that can run, fastest first."""
    reason: str

    @property
    def layout(self) -> Layout:
        return self.best.layout


def balance(
    workload: Workload,
    layout: Layout,
    efficiencies: Efficiencies = DEFAULTS,
    *,
    colocate: bool = True,
    colocate_memory_utilization: float = 0.3,
) -> Balance:
    """The split of `layout`'s GPUs with the shortest step.

    Splits are whole nodes that generate (GPUs that make up no replica stay idle), or the same number of GPUs on every
    node, as many as divide the completions evenly over the training GPUs. In a synchronous step the two sides take
    turns, so each waits for the other, and sharing all GPUs (colocate) is faster wherever the memory allows it: TRL's
    own measurements say up to 1.26–1.73 times (Hugging Face's blog, No GPU left behind, 2025). Separate GPUs pay where
    colocation does not fit, leaves too little KV cache, or where `layout.overlap` lets both sides work at once.

    Args:
        layout: its training and generating GPUs are replaced; the rest stands.
        colocate: weights, optimizer and vLLM fit on one GPU together.
        colocate_memory_utilization: vLLM's share of memory then (TRL's default 0.3).

    Raises:
        PlanError: no split can run.
    """
    found, refused = [], None
    for split in _splits(layout, colocate, colocate_memory_utilization):
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


def _splits(layout: Layout, colocate: bool, utilization: float) -> Iterator[Layout]:
    """A replica never spans nodes: its GPUs sum activations twice a layer."""
    nodes, gpus, replica = layout.nodes, layout.gpus_per_node, layout.tensor_parallel
    if colocate and gpus % replica == 0:
        share = {} if layout.backend == "transformers" else {"gpu_memory_utilization": utilization}
        yield replace(layout, trainer_gpus=nodes * gpus, rollout_gpus=0, kv_pool_bytes=None, **share)
    if layout.backend == "transformers":
        return
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
    other = next((time for time in found if time.layout.colocated != best.layout.colocated), None)
    other = other or next(iter(found[1:]), None)
    text = f"{_name(best.layout)}: {_numbers(best)}"
    if other is None:
        return text + "; nothing else can run"
    return f"{text}; {_name(other.layout)} would take {_numbers(other)}, {_because(best, other)}"


def _because(best: StepTime, other: StepTime) -> str:
    if best.layout.overlap and not best.layout.colocated and other.layout.colocated:
        return "because only separate GPUs generate and train at the same time"
    if best.layout.colocated and not best.layout.overlap:
        return "because the two take turns, so separate GPUs wait for each other"
    names = [part.name for part in (*best.parts, *other.parts) if part.seconds > 0 and part.name != "scoring"]
    name = max(names, key=lambda name: _seconds(other, name) - _seconds(best, name))
    return f"with {_seconds(other, name):.1f} s of {name} instead of {_seconds(best, name):.1f} s"


def _name(layout: Layout) -> str:
    if layout.colocated:
        return f"all {layout.trainer_gpus} GPUs train and generate in turn"
    return f"{layout.trainer_gpus} GPUs train, {layout.rollout_gpus} generate"


def _numbers(time: StepTime) -> str:
    generation, training = _seconds(time, "generation"), _seconds(time, "training")
    return f"{time.seconds:.1f} s per step (generation {generation:.1f} s, training {training:.1f} s)"


def _seconds(time: StepTime, name: str) -> float:
    """Of a part; scoring is the training GPUs' work too."""
    return time.part(name) + (time.part("scoring") if name == "training" else 0)
