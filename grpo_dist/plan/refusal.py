"""A plan that cannot be, with the nearest that can: what to type, each planned before it is said."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError

if TYPE_CHECKING:
    from grpo_dist.plan.launch import LaunchPlan

SHOWN = 3
TRIED = 90
"""Configurations that are planned to find them."""
DEEPEST = 4
"""Changes in one suggestion."""
PAIRS = 3
"""Changes after which another that may make a model fit is no longer added to one that did not."""
WAYS = 24
"""Changes of one refusal that are looked at."""

LEARNING = ("data.", "lora.", "model.max_length", "grpo.prompts_per_step", "grpo.num_generations")
"""Settings that change what is learnt; `grpo.max_completion_length` too."""
HARDWARE, MODEL = "cluster.", "model.name_or_path"


class Way(NamedTuple):
    """A change of settings that may mend what was refused, and what it comes to."""

    settings: dict[str, Any]
    """Dotted setting → value."""
    then: str = ""

    def __str__(self) -> str:
        return " ".join(f"--set {name}={_written(value)}" for name, value in self.settings.items())

    @property
    def cost(self) -> int:
        """0: how it is computed; 1: what is learnt; 2: other machines; 3: another model."""
        return max(_cost(name) for name in self.settings)


class Refused(PlanError):
    """A `PlanError` whose hint is found by planning.

    Args:
        ways: changes that may mend it, nearest first among those of the same cost.
        otherwise: the hint when none is found.
        kind: what is wrong, for telling a new refusal from the same again.
        also: what else can be done, in words, below what was found.
    """

    def __init__(
        self, message: str, ways: Iterable[Way], *, otherwise: str | None = None, kind: str = "", also: str = ""
    ) -> None:
        super().__init__(
            message,
            hint=otherwise or "too much is wrong at once for a few settings to mend it: begin with fewer demands",
        )
        self.ways = ways
        self.also = also
        self.kind = kind or message.partition(":")[0]

    def find_hint(self, config: RunConfig, plan: Callable[[RunConfig], LaunchPlan]) -> Refused:
        """With the nearest configurations that can be planned as the hint."""
        found = list(islice(nearest(config, self, plan), SHOWN))
        if found:
            self.hint = listed(found) + (f"\n    {self.also}" if self.also else "")
        return self


class _Candidate(NamedTuple):
    """Ordered by what it costs and how many changes it takes: one more weighs as much as one that costs more."""

    rank: int
    cost: int
    depth: int
    number: int
    way: Way
    kind: str
    """Of the refusal it is meant to mend."""


def nearest(config: RunConfig, refused: Refused, plan: Callable[[RunConfig], LaunchPlan]) -> Iterator[Way]:
    """Changes with which the configuration can be planned, the cheapest first, one of the same settings.

    A change that only leads to another refusal is followed by what mends that one.
    """
    numbers, seen, heap, found = count(), set(), [], set()
    _push(heap, numbers, refused, Way({}), 1)
    for _ in range(TRIED):
        candidate = _pop(heap, seen, found)
        if candidate is None:
            return
        way, asked = candidate.way, changed(config, candidate.way)
        if asked is None:
            continue
        try:
            planned = plan(asked)
        except Refused as another:
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
    config: RunConfig, way: Way, planned: LaunchPlan, plan: Callable[[RunConfig], LaunchPlan]
) -> tuple[Way, LaunchPlan]:
    """Without changes that led there and that it runs without."""
    for name in list(way.settings) if len(way.settings) > 1 else ():
        rest = {other: value for other, value in way.settings.items() if other != name}
        fewer = Way(rest, way.then)
        asked = changed(config, fewer) if rest else None
        try:
            planned, way = (planned, way) if asked is None else (plan(asked), fewer)
        except PlanError:
            continue
    return way, planned


def _push(heap: list[_Candidate], numbers: Iterator[int], refused: Refused, before: Way, depth: int) -> None:
    """What may mend a refusal, beside what was changed already."""
    for way in islice(refused.ways, WAYS):
        both = Way({**before.settings, **way.settings}, way.then if depth == 1 else "")
        heapq.heappush(heap, _Candidate(both.cost + depth, both.cost, depth, next(numbers), both, refused.kind))


def _pop(heap: list[_Candidate], seen: set[Any], found: set[frozenset[str]]) -> _Candidate | None:
    """The cheapest not tried yet; once something was found only single changes."""
    while heap:
        candidate = heapq.heappop(heap)
        key = frozenset((name, str(value)) for name, value in candidate.way.settings.items())
        needless = frozenset(candidate.way.settings) in found or (found and candidate.depth > 1)
        if key not in seen and not needless:
            seen.add(key)
            return candidate
    return None


def changed(config: RunConfig, way: Way) -> RunConfig | None:
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


def listed(ways: list[Way]) -> str:
    """As a hint, one to a line."""
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
