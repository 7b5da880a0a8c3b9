"""What each cluster size costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grpo_dist.plan.timing.efficiencies import DEFAULTS, Efficiencies
from grpo_dist.plan.timing.setup import Layout, Workload
from grpo_dist.plan.timing.step import StepTime, step_time


@dataclass(frozen=True)
class ScaleRow:
    """One size: `steps` optimizer steps on it."""

    nodes: int
    gpus: int
    """In use."""
    prompts_per_step: int
    num_generations: int
    completions_per_step: int
    tokens_per_step: float
    """Prompts and mean completions, padding left out."""
    seconds_per_step: float
    tokens_per_second: float
    steps: int
    hours: float
    gpu_hours: float
    time: StepTime


def scale_rows(
    sizes: Iterable[tuple[Workload, Layout]], steps: int, efficiencies: Efficiencies = DEFAULTS
) -> tuple[ScaleRow, ...]:
    """One row per size, in the order given.

    Raises:
        PlanError: see `step_time`.
    """
    return tuple(_row(step_time(workload, layout, efficiencies), steps) for workload, layout in sizes)


def _row(time: StepTime, steps: int) -> ScaleRow:
    workload, layout = time.workload, time.layout
    return ScaleRow(
        nodes=layout.nodes,
        gpus=layout.gpus,
        prompts_per_step=workload.prompts_per_step,
        num_generations=workload.num_generations,
        completions_per_step=workload.completions,
        tokens_per_step=workload.tokens,
        seconds_per_step=time.seconds,
        tokens_per_second=time.tokens_per_second,
        steps=steps,
        hours=steps * time.seconds / 3600,
        gpu_hours=steps * time.gpu_hours,
        time=time,
    )
