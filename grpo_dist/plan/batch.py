"""One optimizer step's completions → what each process does, by TRL's own rules; and refusals with alternatives.

Source of the rules: `GRPOConfig.__post_init__` (TRL 1.15–1.16): generation_batch_size = per_device_train_batch_size ×
num_processes × steps_per_generation, and it must be divisible by num_generations; so must per_device_eval_batch_size ×
num_processes, if TRL evaluates.

A refusal suggests the nearest settings that work; each suggestion is planned before it is shown.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count, islice
from math import gcd
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError

if TYPE_CHECKING:
    from grpo_dist.plan.launch import LaunchPlan


LARGEST = 65_536
"""No micro-batch and no number of nodes is larger."""


def largest_divisor(number: int, limit: int) -> int:
    """Largest divisor of number that is at most limit, and at most 65,536."""
    return next(divisor for divisor in range(min(number, limit, LARGEST), 0, -1) if number % divisor == 0)


SHOWN = 3
TRIED = 90
"""Most configurations planned in search of suggestions."""
DEEPEST = 4
"""Most changes in one suggestion."""
PAIRS = 3
"""Number of changes after which no further change is added to one that did not make the model fit."""
WAYS = 24
"""Most changes of one refusal that are considered."""

LEARNING = ("data.", "lora.", "model.max_length", "grpo.prompts_per_step", "grpo.num_generations")
"""Settings that change the result of training; `grpo.max_completion_length` too."""
HARDWARE, MODEL = "cluster.", "model.name_or_path"


class Alternative(NamedTuple):
    """A change of settings that may resolve a refusal, with its cost."""

    settings: dict[str, Any]
    """Dotted setting → value."""
    then: str = ""

    def __str__(self) -> str:
        return " ".join(f"--set {name}={_written(value)}" for name, value in self.settings.items())

    @property
    def cost(self) -> int:
        """0: changes how it is computed; 1: the result of training; 2: the machines; 3: the model."""
        return max(_cost(name) for name in self.settings)


class PlanRefusal(PlanError):
    """A `PlanError` whose hint is found by planning.

    Args:
        ways: changes that may resolve it, nearest first among those of the same cost.
        otherwise: the hint if none is found.
        kind: kind of error, to distinguish a new refusal from a repeated one.
        also: what else can be done, in words, shown below the suggestions.
    """

    def __init__(
        self, message: str, ways: Iterable[Alternative], *, otherwise: str | None = None, kind: str = "", also: str = ""
    ) -> None:
        super().__init__(
            message,
            hint=otherwise or "too much is wrong at once for a few settings to fix it: begin with fewer demands",
        )
        self.ways = ways
        self.also = also
        self.kind = kind or message.partition(":")[0]

    def find_hint(self, config: RunConfig, plan: Callable[[RunConfig], LaunchPlan]) -> PlanRefusal:
        """The refusal with the nearest configurations that work as its hint."""
        found = list(islice(nearest(config, self, plan), SHOWN))
        if found:
            self.hint = listed(found) + (f"\n    {self.also}" if self.also else "")
        return self


class _Candidate(NamedTuple):
    """Ordered by its cost and number of changes: an additional change weighs as much as one level of cost."""

    rank: int
    cost: int
    depth: int
    number: int
    way: Alternative
    kind: str
    """Of the refusal it should resolve."""


def nearest(config: RunConfig, refused: PlanRefusal, plan: Callable[[RunConfig], LaunchPlan]) -> Iterator[Alternative]:
    """Changes that make the configuration plannable, cheapest first, one for each set of settings.

    A change that only leads to another refusal is combined with changes that resolve that one.
    """
    numbers, seen, heap, found = count(), set(), [], set()
    _push(heap, numbers, refused, Alternative({}), 1)
    for _ in range(TRIED):
        candidate = _pop(heap, seen, found)
        if candidate is None:
            return
        way, asked = candidate.way, changed(config, candidate.way)
        if asked is None:
            continue
        try:
            planned = plan(asked)
        except PlanRefusal as another:
            progress = another.kind != candidate.kind or (another.kind == "memory" and candidate.depth < PAIRS)
            if progress and candidate.depth < DEEPEST:
                _push(heap, numbers, another, way, candidate.depth + 1)
        except PlanError:
            continue
        else:
            way, planned = _without_needless(config, way, planned, plan)
            if frozenset(way.settings) not in found:
                found.add(frozenset(way.settings))
                yield way if way.then else way._replace(then=_comes_to(planned))


def _without_needless(
    config: RunConfig, way: Alternative, planned: LaunchPlan, plan: Callable[[RunConfig], LaunchPlan]
) -> tuple[Alternative, LaunchPlan]:
    """Without changes that turn out to be unnecessary."""
    for name in list(way.settings) if len(way.settings) > 1 else ():
        rest = {other: value for other, value in way.settings.items() if other != name}
        fewer = Alternative(rest, way.then)
        asked = changed(config, fewer) if rest else None
        try:
            planned, way = (planned, way) if asked is None else (plan(asked), fewer)
        except PlanError:
            continue
    return way, planned


def _push(
    heap: list[_Candidate], numbers: Iterator[int], refused: PlanRefusal, before: Alternative, depth: int
) -> None:
    """Changes that may resolve a refusal, added to those already made."""
    for way in islice(refused.ways, WAYS):
        both = Alternative({**before.settings, **way.settings}, way.then if depth == 1 else "")
        heapq.heappush(heap, _Candidate(both.cost + depth, both.cost, depth, next(numbers), both, refused.kind))


def _pop(heap: list[_Candidate], seen: set[Any], found: set[frozenset[str]]) -> _Candidate | None:
    """The cheapest not tried yet; once something was found, only single changes."""
    while heap:
        candidate = heapq.heappop(heap)
        key = frozenset((name, str(value)) for name, value in candidate.way.settings.items())
        needless = frozenset(candidate.way.settings) in found or (found and candidate.depth > 1)
        if key not in seen and not needless:
            seen.add(key)
            return candidate
    return None


def changed(config: RunConfig, way: Alternative) -> RunConfig | None:
    """The configuration with those settings; None when they contradict others, or change nothing."""
    stated = config.model_dump()
    plain = deepcopy(stated)
    for name, value in way.settings.items():
        *path, last = name.split(".")
        section = plain
        for key in path:
            section = section[key]
        section[last] = value
    if plain == stated:
        return None
    try:
        return RunConfig.model_validate(plain)
    except ValidationError:
        return None


def listed(ways: list[Alternative]) -> str:
    """The suggestions as a hint, one per line."""
    width = max(len(str(way)) for way in ways)
    return "nearest that can run:" + "".join(f"\n      {way!s:<{width}}  {way.then}".rstrip() for way in ways)


def _comes_to(planned: LaunchPlan) -> str:
    roles = (planned.memory or {}).get("roles", {})
    if not roles:
        return ""
    fullest = max(role["total_bytes"] for role in roles.values())
    return f"{fullest / 2**30:.1f} GiB a GPU"


def _cost(name: str) -> int:
    if name == MODEL:
        return 3
    if name.startswith(HARDWARE):
        return 2
    return int(name.startswith(LEARNING) or name == "grpo.max_completion_length")


def _written(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


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
        fewer = Alternative(
            {"distributed.num_processes": largest_divisor(completions, num_processes)}, "the same completions"
        )
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
    prompts: int, group: int, counts: Sequence[int], *, hardware: Iterable[Alternative], where: str = ""
) -> PlanRefusal:
    """The refusal for completions that divide over none of the possible numbers of processes.

    Args:
        counts: the possible numbers of processes.
        hardware: other machines that would work, nearest first.
        where: the machines, for the message.
    """
    completions = prompts * group
    stated = f"{prompts} prompt{'' if prompts == 1 else 's'} × {group} completions = {completions} completions per step"
    return PlanRefusal(
        f"{stated} {_mismatch(completions, counts, where)}", _ways(prompts, group, counts, hardware), kind="batch"
    )


def _ways(prompts: int, group: int, counts: Sequence[int], hardware: Iterable[Alternative]) -> Iterator[Alternative]:
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


def _prompts(prompts: int, group: int) -> Alternative:
    return Alternative(
        {"grpo.prompts_per_step": prompts}, f"{prompts} × {group} = {prompts * group} completions per step"
    )


def _group(prompts: int, group: int) -> Alternative:
    return Alternative({"grpo.num_generations": group}, f"{prompts} × {group} = {prompts * group} completions per step")


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
    """Multiples of any of the strides, nearest to value first; of two equally near, the larger first."""
    below = {(value // stride * stride, stride) for stride in strides}
    around = {n for low, stride in below for n in (low, low + stride, low + 2 * stride) if n >= at_least}
    return sorted(around, key=lambda n: (abs(n - value), -n))


def _evaluation(group: int, processes: int, at_least: int) -> int:
    stride = group // gcd(group, processes)
    return -(-at_least // stride) * stride
