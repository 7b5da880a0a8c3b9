"""Looking settings up in the schema by their path."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

from grpo_dist.config.grpo import GrpoSection
from grpo_dist.config.kinds import Member, is_section, members
from grpo_dist.config.problems import Path
from grpo_dist.config.run import RunConfig
from grpo_dist.config.trl_fields import PASSED_ON


def lookup(path: Path, root: Any = RunConfig) -> tuple[Path, Member]:
    """The path without what the schema does not know in it, and (annotation, constraints) of the setting there.

    Pydantic puts names such as `tuple[str, ...]` into a path to tell the members of a union apart; they drop out.
    """
    known: Path = ()
    member: Member = (root, ())
    for key in path:
        inner = _inside(member[0], key)
        if inner is not None:
            known, member = (*known, key), inner
    return known, member


def section_at(path: Path) -> Any | None:
    """The section class at a path, None when something else or nothing is there."""
    known, (annotation, _) = lookup(path)
    return _section(annotation) if known == path else None


def keys(section: Any) -> list[str]:
    """Every setting a section takes, ours first."""
    return [*section.model_fields, *(PASSED_ON if section is GrpoSection else ())]


@cache
def all_settings() -> tuple[Path, ...]:
    """The path of every setting there is, sections included; a list's entries are entry 0."""
    return tuple(_below(RunConfig, ()))


def _below(section: Any, path: Path) -> Iterator[Path]:
    for key in keys(section):
        here: Path = (*path, key)
        yield here
        for end in ((), (0,)):
            if inner := section_at((*here, *end)):
                yield from _below(inner, (*here, *end))


def _inside(annotation: Any, key: str | int) -> Member | None:
    """(annotation, constraints) of what stands under a key or index, None when nothing can."""
    section = _section(annotation)
    if section and key in section.model_fields:
        found = section.model_fields[key]
        return found.annotation, tuple(found.metadata)
    if section is GrpoSection and key in PASSED_ON:
        return PASSED_ON[key], ()
    for kind, _ in members(annotation):
        if isinstance(key, int) and get_origin(kind) in (tuple, list):
            return get_args(kind)[0], ()
        if isinstance(key, str) and get_origin(kind) is dict and not section:
            return get_args(kind)[1], ()
    return None


def _section(annotation: Any) -> Any | None:
    return next((kind for kind, _ in members(annotation) if is_section(kind)), None)
