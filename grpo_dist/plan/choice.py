"""Which of the possible splits is taken, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from grpo_dist.errors import PlanError
from grpo_dist.plan.architecture import Architecture
from grpo_dist.plan.basis import Basis
from grpo_dist.plan.batch import does_not_divide
from grpo_dist.plan.demand import engine_setup
from grpo_dist.plan.estimate import layout, workload
from grpo_dist.plan.fitting import Fit, fit
from grpo_dist.plan.memory import max_concurrency
from grpo_dist.plan.nearest import no_split, ways_to_divide
from grpo_dist.plan.oversize import engine_does_not_fit
from grpo_dist.plan.refusal import Refused
from grpo_dist.plan.split import Machines, Split, splits
from grpo_dist.plan.timing import StepTime, Workload, balance

TRIED = 8
"""Fastest splits that are held against the memory, when it depends on the number of training processes."""
USUAL_SHARE = 4
"""One GPU in so many generates when nothing is known of the model."""


class Choice(NamedTuple):
    split: Split
    reason: str
    fitted: Fit | None
    """None when the model is not known."""


def choose(basis: Basis, machines: Machines) -> Choice:
    """The split that is stated; where it is left open the fastest that fits.

    Raises:
        PlanError: there is none, none divides the step's completions, or none fits.
    """
    grpo = basis.config.grpo
    completions = grpo.prompts_per_step * grpo.num_generations
    if not any(splits(machines, completions)):
        raise _refusal(basis, machines, completions)
    if machines.is_open:
        return _fastest(basis, machines, completions)
    split = min(splits(machines, completions), key=lambda split: _idle(machines, split))
    fitted = None if basis.architecture is None else fit(basis, basis.architecture, split, completions)
    return Choice(split, _stated(machines, split), fitted)


def _refusal(basis: Basis, machines: Machines, completions: int) -> Refused:
    counts = list(dict.fromkeys(split.num_processes for split in splits(machines)))
    if not counts:
        return no_split(machines)
    grpo, where = basis.config.grpo, str(machines)
    hardware = ways_to_divide(machines, completions)
    return does_not_divide(grpo.prompts_per_step, grpo.num_generations, counts, hardware=hardware, where=where)


def _fastest(basis: Basis, machines: Machines, completions: int) -> Choice:
    if basis.architecture is None:
        total = machines.nodes * machines.gpus_per_node
        split = min(splits(machines, completions), key=lambda split: abs(split.rollout_gpus * USUAL_SHARE - total))
        why = f"about one GPU in {USUAL_SHARE} generates, for want of the model's shape"
        return Choice(split, f"{_numbers(split)}: {why}", None)
    limit = basis.config.distributed.max_per_device_train_batch_size
    first = _first_that_fits(basis, basis.architecture, machines, limit)
    return _first_that_fits(basis, basis.architecture, machines, first.fitted.micro_batch)


def _first_that_fits(basis: Basis, architecture: Architecture, machines: Machines, micro_batch: int) -> Choice:
    """The fastest with this micro-batch, which the memory then decides: hence twice."""
    refused: PlanError | None = None
    work = workload(basis, architecture, micro_batch)
    for number, (split, reason) in enumerate(_by_time(basis, work, machines)):
        try:
            fitted = fit(basis, architecture, split, work.completions)
        except PlanError as error:
            refused = refused or error
            if number == TRIED or basis.config.distributed.strategy == "ddp":
                break
            continue
        return Choice(split, reason if refused is None else f"{reason}; faster splits do not fit", fitted)
    raise refused or no_split(machines)


def _by_time(basis: Basis, work: Workload, machines: Machines) -> Iterator[tuple[Split, str]]:
    """The open splits, fastest first."""
    engine = engine_setup(basis, work.architecture, machines.tensor_parallel_size, 1)
    if not max_concurrency(engine):
        raise engine_does_not_fit(basis, engine, [])
    first = next(splits(machines, work.completions))
    found = balance(work, layout(basis, first, engine), basis.efficiencies, colocate=False)
    allowed = {_gpus(split): split for split in reversed(list(splits(machines, work.completions)))}
    for time in found.candidates:
        split = allowed.get((time.layout.trainer_gpus, time.layout.rollout_gpus))
        if split is not None:
            yield split, found.reason if time is found.best else f"{_numbers(split)}: {_seconds(time)}"


def _stated(machines: Machines, split: Split) -> str:
    if machines.mode == "server":
        return f"{_numbers(split)}, as stated"
    shared = "GPU" if machines.gpus_per_node else "CPUs"
    generating = "generates too" if machines.mode == "transformers" else f"shares its {shared} with a vLLM engine"
    if split.num_processes == 1:
        return f"one process on {'one GPU' if machines.gpus_per_node else 'CPU'}, which {generating}"
    return f"{split.num_processes} processes train on {machines}; each {generating}"


def _numbers(split: Split) -> str:
    if split.rollout_nodes:
        where = f"{split.rollout_nodes} whole node{_s(split.rollout_nodes)}"
    elif split.rollout_gpus_per_node:
        where = f"{split.rollout_gpus_per_node} GPU{_s(split.rollout_gpus_per_node)} of each node"
    else:
        where = "the same CPUs"
    training = "1 process trains" if split.num_processes == 1 else f"{split.num_processes} processes train"
    generating = "1 replica generates" if split.replicas == 1 else f"{split.replicas} replicas generate"
    return f"{training}, {generating} on {where}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _seconds(time: StepTime) -> str:
    training = time.part("training") + time.part("scoring")
    return f"{time.seconds:.1f} s per step (generation {time.part('generation'):.1f} s, training {training:.1f} s)"


def _gpus(split: Split) -> tuple[int, int]:
    """That train, that generate."""
    return split.num_processes, split.rollout_gpus


def _idle(machines: Machines, split: Split) -> int:
    return machines.nodes * machines.gpus_per_node - split.num_processes - split.rollout_gpus
