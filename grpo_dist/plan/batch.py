"""One optimizer step's completions → what each process does, by TRL's own rules.

Source of the rules: `GRPOConfig.__post_init__` (TRL 1.15–1.16):
generation_batch_size = per_device_train_batch_size × num_processes × steps_per_generation,
and it must be divisible by num_generations; per_device_eval_batch_size × num_processes must be too, once TRL evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import gcd

from grpo_dist.plan.divisors import largest_divisor
from grpo_dist.plan.refusal import SHOWN, Refused, Way, listed

COUNTS_SHOWN = 4


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
    per_device_eval_batch_size: int
    """Fewest that hold whole groups over all processes, at least a training micro-batch where that is possible."""


def plan_batch(
    *,
    prompts_per_step: int,
    num_generations: int,
    num_processes: int,
    max_per_device_train_batch_size: int,
) -> BatchPlan:
    """Share one step's completions evenly; each process takes the largest micro-batch that fits its limit.

    Generation serves exactly one optimizer step, so steps_per_generation equals gradient_accumulation_steps.

    Raises:
        PlanError: the completions do not divide over the processes.
    """
    completions = prompts_per_step * num_generations
    if completions % num_processes:
        fewer = Way({"distributed.num_processes": largest_divisor(completions, num_processes)}, "the same completions")
        refused = does_not_divide(prompts_per_step, num_generations, [num_processes], hardware=[fewer])
        refused.hint = listed(list(islice(refused.ways, SHOWN)))
        raise refused
    per_process = completions // num_processes
    per_device = largest_divisor(per_process, max_per_device_train_batch_size)
    accumulation = per_process // per_device
    return BatchPlan(
        num_processes=num_processes,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation,
        generation_batch_size=completions,
        num_generations=num_generations,
        prompts_per_step=prompts_per_step,
        per_device_eval_batch_size=_evaluation(num_generations, num_processes, per_device),
    )


def aligned_save_steps(save_steps: int, num_iterations: int) -> int:
    """Smallest number of optimizer steps ≥ save_steps that ends a generation window.

    A window spans num_iterations optimizer steps. TRL does not save the completions it still holds, so a run
    resumed inside a window would not be the run that was interrupted.
    """
    return -(-save_steps // num_iterations) * num_iterations


def does_not_divide(
    prompts: int, group: int, counts: Sequence[int], *, hardware: Iterable[Way], where: str = ""
) -> Refused:
    """Completions that divide over none of the numbers of processes that can be had.

    Args:
        counts: those numbers.
        hardware: other machines that make it work, nearest first.
        where: the machines, for the message.
    """
    completions = prompts * group
    stated = f"{prompts} prompt{'' if prompts == 1 else 's'} × {group} completions = {completions} completions per step"
    return Refused(
        f"{stated} {_mismatch(completions, counts, where)}", _ways(prompts, group, counts, hardware), kind="batch"
    )


def _ways(prompts: int, group: int, counts: Sequence[int], hardware: Iterable[Way]) -> Iterator[Way]:
    """The nearest number of prompts, the nearest group, the nearest machines; then more of each."""
    by_prompts = _nearest(prompts, [count // gcd(group, count) for count in counts], at_least=1)
    by_group = _nearest(group, [count // gcd(prompts, count) for count in counts], at_least=2)
    more = iter(hardware)
    yield _prompts(by_prompts[0], group)
    yield _group(prompts, by_group[0])
    yield from (way for way in (next(more, None),) if way is not None)
    yield from (_prompts(value, group) for value in by_prompts[1:])
    yield from (_group(prompts, value) for value in by_group[1:])
    yield from more


def _prompts(prompts: int, group: int) -> Way:
    return Way({"grpo.prompts_per_step": prompts}, f"{prompts} × {group} = {prompts * group} completions per step")


def _group(prompts: int, group: int) -> Way:
    return Way({"grpo.num_generations": group}, f"{prompts} × {group} = {prompts * group} completions per step")


def _mismatch(completions: int, counts: Sequence[int], where: str) -> str:
    if len(counts) > 1:
        shown = ", ".join(str(count) for count in counts[:COUNTS_SHOWN]) + (", …" if len(counts) > COUNTS_SHOWN else "")
        return f"divide over none of the numbers of training processes that {where} leave: {shown}"
    count = counts[0]
    whole, rest = divmod(completions, count)
    named = f" ({where})" if where else ""
    text = f"do not divide over {count} processes{named}: {completions} = {whole} × {count} + {rest}; "
    if not whole:
        return f"{text}there are more processes than completions"
    missing = count // gcd(completions, count)
    return f"{text}{completions} lacks the factor {missing}{'' if missing == count else f' of {count}'}"


def _nearest(value: int, strides: Sequence[int], *, at_least: int) -> list[int]:
    """Multiples of any of the strides, nearest to value first; of two as near the larger."""
    below = {(value // stride * stride, stride) for stride in strides}
    around = {n for low, stride in below for n in (low, low + stride, low + 2 * stride) if n >= at_least}
    return sorted(around, key=lambda n: (abs(n - value), -n))


def _evaluation(group: int, processes: int, at_least: int) -> int:
    stride = group // gcd(group, processes)
    return -(-at_least // stride) * stride
