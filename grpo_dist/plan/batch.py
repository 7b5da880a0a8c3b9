"""One optimizer step's completions → what each process does, by TRL's own rules.

Source of the rules: `GRPOConfig.__post_init__` (TRL 1.15–1.16):
generation_batch_size = per_device_train_batch_size × num_processes × steps_per_generation,
and it must be divisible by num_generations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from grpo_dist.errors import PlanError


@dataclass(frozen=True)
class BatchPlan:
    """Sizes of one optimizer step; all but prompts_per_step count completions."""

    num_processes: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    steps_per_generation: int
    generation_batch_size: int
    num_generations: int
    prompts_per_step: int


def plan_batch(
    *,
    prompts_per_step: int,
    num_generations: int,
    num_processes: int,
    max_per_device_train_batch_size: int,
    processes_key: str = "distributed.num_processes",
) -> BatchPlan:
    """Share one step's completions evenly; each process takes the largest micro-batch that fits its limit.

    processes_key is the setting that changes num_processes, for the error.

    Generation serves exactly one optimizer step, so steps_per_generation equals gradient_accumulation_steps.

    Raises:
        PlanError: the completions do not divide over the processes.
    """
    completions = prompts_per_step * num_generations
    if completions % num_processes:
        raise _does_not_divide(prompts_per_step, num_generations, num_processes, processes_key)
    per_process = completions // num_processes
    per_device = _largest_divisor(per_process, max_per_device_train_batch_size)
    accumulation = per_process // per_device
    return BatchPlan(
        num_processes=num_processes,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation,
        generation_batch_size=completions,
        num_generations=num_generations,
        prompts_per_step=prompts_per_step,
    )


def aligned_save_steps(save_steps: int, num_iterations: int) -> int:
    """Smallest number of optimizer steps ≥ save_steps that ends a generation window.

    A window spans num_iterations optimizer steps. TRL does not save the completions it still holds, so a run
    resumed inside a window would not be the run that was interrupted.
    """
    return -(-save_steps // num_iterations) * num_iterations


def _largest_divisor(number: int, limit: int) -> int:
    """Largest divisor of number that is at most limit; found below its square root."""
    divisors = (d for i in range(1, int(number**0.5) + 1) if number % i == 0 for d in (i, number // i))
    return max(d for d in divisors if d <= limit)


def _does_not_divide(prompts: int, group: int, processes: int, processes_key: str) -> PlanError:
    prompt_stride = processes // gcd(group, processes)
    group_stride = processes // gcd(prompts, processes)
    choices = [
        *(f"grpo.prompts_per_step={p}" for p in _neighbours(prompts, prompt_stride, at_least=1)),
        *(f"grpo.num_generations={g}" for g in _neighbours(group, group_stride, at_least=2)),
        f"{processes_key}={_largest_divisor(prompts * group, processes)}",
    ]
    return PlanError(
        f"{prompts} prompts × {group} completions = {prompts * group} completions per step "
        f"do not divide over {processes} processes ({prompts * group} = {prompts * group // processes} × {processes} "
        f"+ {prompts * group % processes})",
        hint="nearest that do: --set " + ", or --set ".join(choices),
    )


def _neighbours(value: int, stride: int, *, at_least: int) -> list[int]:
    below = value // stride * stride
    return [n for n in (below, below + stride) if n >= at_least]
