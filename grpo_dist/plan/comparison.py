"""The comparison of base and trained model: what generates the answers, its memory, and how long it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.plan.batch import Alternative, PlanRefusal
from grpo_dist.plan.fit import Fit
from grpo_dist.plan.inputs import SERVER_UTILIZATION, PlanInputs, engine_setup, largest, trainer_setup
from grpo_dist.plan.memory import (
    MemoryBreakdown,
    RolloutSetup,
    answering_memory,
    kv_cache_bytes,
    max_concurrency,
    rollout_memory,
)
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.time import generation_time, transformers_time
from grpo_dist.plan.topology import Split, Topology

MODELS = 2
"""Base and trained model."""


def generates_on_engines(config: RunConfig) -> bool:
    """Each training process had an engine, and starts one for the comparison."""
    rollout = config.rollout
    return rollout.colocated and rollout.syncs_adapter


def comparing_processes(config: RunConfig, where: Topology) -> int:
    """Processes that share the comparison; 1 if the run's servers answer."""
    return 1 if where.replicas and config.rollout.syncs_adapter else where.num_processes


@dataclass(frozen=True)
class ComparisonPlan:
    """The resources the compare stage needs."""

    answering: str
    """What generates the answers."""
    memory: MemoryBreakdown | None
    """Of one GPU; None if the run's servers answer, whose memory is already planned."""
    seconds: float
    completions: int
    """Seconds for both models."""

    def to_dict(self, gpus: int) -> dict[str, Any]:
        """Ready for JSON; GPU-hours are of all GPUs of the nodes, None on CPU."""
        hours = self.seconds / 3600
        return {
            "answering": self.answering,
            "completions": self.completions,
            "seconds": self.seconds,
            "hours": hours,
            "gpu_hours": gpus * hours if gpus else None,
        }


def plan_comparison(
    basis: PlanInputs, architecture: Architecture, split: Split, fitted: Fit, where: Topology
) -> ComparisonPlan | None:
    """None if nothing is compared, or if vLLM runs on CPUs, whose time is not estimated.

    Raises:
        Refused: it does not fit.
    """
    config = basis.config
    if not config.evaluation.enabled or (config.rollout.uses_vllm and where.on_cpu):
        return None
    if comparing_processes(config, where) == 1 and where.replicas:
        return _on_servers(basis, fitted.engine, len(where.replicas))
    if generates_on_engines(config):
        engine = replace(
            engine_setup(basis, architecture, split.tensor_parallel_size, 0),
            gpu_memory_utilization=SERVER_UTILIZATION,
            max_num_seqs=RolloutSetup.max_num_seqs,
        )
        return _on_engines(basis, engine, split.num_processes // split.tensor_parallel_size)
    return _in_processes(basis, architecture, split)


def _on_servers(basis: PlanInputs, engine: RolloutSetup, replicas: int) -> ComparisonPlan:
    at_once = max(basis.config.evaluation.batch_size, RolloutSetup.max_num_seqs * replicas)
    seconds = _seconds(basis, at_once, 1, lambda count: _engine_seconds(basis, engine, count, replicas))
    return ComparisonPlan(f"the run's {_counted(replicas, 'server')}", None, seconds, _completions(basis))


def _on_engines(basis: PlanInputs, engine: RolloutSetup, engines: int) -> ComparisonPlan:
    if not max_concurrency(engine):
        raise PlanRefusal(
            f"evaluation.max_completion_length: an engine of the comparison has no room for a text of "
            f"{engine.max_model_len:,} tokens in addition to its weights",
            (Alternative({"evaluation.max_completion_length": None}), *_off()),
        )
    at_once = 4 * RolloutSetup.max_num_seqs
    seconds = _seconds(basis, at_once, engines, lambda count: _engine_seconds(basis, engine, count, 1))
    who = f"{_counted(engines, 'engine')} on the training GPUs"
    return ComparisonPlan(who, rollout_memory(engine), seconds, _completions(basis))


def _in_processes(basis: PlanInputs, architecture: Architecture, split: Split) -> ComparisonPlan:
    config, processes = basis.config, split.num_processes

    def memory(batch_size: int) -> MemoryBreakdown:
        setup = replace(trainer_setup(basis, architecture, 1, 0), completion_tokens=_longest(config))
        return answering_memory(setup, batch_size)

    # All samples of a problem are drawn together.
    batch_size = max(config.evaluation.batch_size, config.evaluation.num_samples)
    if _on_gpus(basis) and not memory(batch_size).fits(int(basis.gpu.memory)):
        raise _too_many_at_once(basis, memory)
    seconds = _seconds(
        basis,
        batch_size,
        processes,
        lambda count: (
            transformers_time(
                architecture,
                basis.gpu,
                basis.comparison_lengths,
                completions=count,
                processes=1,
                efficiencies=basis.efficiencies,
            ).seconds
        ),
    )
    who = f"{_counted(processes, 'training process', 'training processes')} with Transformers"
    return ComparisonPlan(who, memory(batch_size) if _on_gpus(basis) else None, seconds, _completions(basis))


def _on_gpus(basis: PlanInputs) -> bool:
    return basis.config.cluster.gpus_per_node > 0


def _too_many_at_once(basis: PlanInputs, memory: Callable[[int], MemoryBreakdown]) -> PlanRefusal:
    evaluation, room = basis.config.evaluation, int(basis.gpu.memory)
    stated = {"evaluation.batch_size": evaluation.batch_size, "evaluation.num_samples": evaluation.num_samples}
    setting, at_once = max(stated.items(), key=lambda one: one[1])
    fewer = largest(lambda count: memory(count).fits(room), 1, at_once)
    total = memory(at_once).total
    ways = (Alternative({name: fewer for name, count in stated.items() if count > fewer}),) if fewer else ()
    return PlanRefusal(
        f"{setting}: generating {at_once:,} answers at a time in texts of up to "
        f"{basis.prompt_tokens + _longest(basis.config):,} tokens needs {total / 2**30:.1f} GiB, and one "
        f"{basis.gpu.name} has {room / 2**30:.1f} GiB",
        (*ways, *_off()),
    )


def _off() -> tuple[Alternative, ...]:
    return (Alternative({"evaluation.enabled": False}, "no comparison is made"),)


def _seconds(basis: PlanInputs, at_once: int, shares: int, answering: Callable[[int], float]) -> float:
    """Both models answer all problems, once greedily and `num_samples` times sampled, in portions."""
    evaluation = basis.config.evaluation
    problems = ceil(evaluation.num_problems / shares)
    seconds = 0.0
    for per_problem in (1, evaluation.num_samples):
        portion = max(1, at_once // max(1, per_problem)) * per_problem
        whole, rest = divmod(problems * per_problem, max(1, portion))
        seconds += whole * answering(portion) if whole else 0.0
        seconds += answering(rest) if rest else 0.0
    return MODELS * seconds


def _engine_seconds(basis: PlanInputs, engine: RolloutSetup, completions: int, replicas: int) -> float:
    return generation_time(
        engine.architecture,
        basis.gpu,
        basis.comparison_lengths,
        completions=completions,
        num_generations=max(1, basis.config.evaluation.num_samples),
        replicas=replicas,
        kv_pool_bytes=kv_cache_bytes(engine),
        link=basis.intra,
        tensor_parallel=engine.tensor_parallel_size,
        max_num_seqs=engine.max_num_seqs,
        efficiencies=basis.efficiencies,
    ).seconds


def _longest(config: RunConfig) -> int:
    return config.evaluation.max_completion_length or config.grpo.max_completion_length


def _completions(basis: PlanInputs) -> int:
    evaluation = basis.config.evaluation
    return MODELS * evaluation.num_problems * (1 + evaluation.num_samples)


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
