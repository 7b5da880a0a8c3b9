"""Pydantic's errors → problems a user can mend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_origin

from pydantic import ValidationError

from grpo_dist.config.kinds import LARGEST_INTEGER, Member, choices, describe, is_section, members
from grpo_dist.config.problems import Path, Problem, dotted, shown
from grpo_dist.config.run import RunConfig
from grpo_dist.config.schema import lookup
from grpo_dist.config.suggestions import ONLY_ADAPTERS, closest, unknown_in, unknown_setting
from grpo_dist.config.yaml_source import Source

EXAMPLES = {
    "model": "model: {name_or_path: Qwen/Qwen3-4B-Base}",
    "model.name_or_path": "name_or_path: Qwen/Qwen3-4B-Base",
    "data": "data: {name_or_path: open-r1/DAPO-Math-17k-Processed, config: en}",
    "data.name_or_path": "name_or_path: open-r1/DAPO-Math-17k-Processed",
    "warm_start.data": "data: {name_or_path: examples.jsonl}",
    "warm_start.data.name_or_path": "name_or_path: examples.jsonl",
    "rewards.functions.name": "name: notebook",
    "evaluation.scorer.name": "name: accuracy",
    "cluster.container.runtime": "runtime: pyxis",
    "cluster.container.image": "image: /images/grpo.sqsh",
}
"""Required setting → a line that states it."""

ADAPTER: tuple[Path, ...] = (("lora", "r"), ("lora", "lora_alpha"), ("lora", "target_modules"))
"""Settings that say nothing where no adapter is wanted."""

FORMS = {"time": "time: 24:00:00"}
"""Name of a setting with a form of its own → a line that has it."""

WITH_COLONS = "; put each setting on a line of its own, with a space after its colon"


def problems(invalid: ValidationError, source: Source, root: Any = RunConfig) -> Iterator[Problem]:
    """One problem per setting that is wrong and of which the source has none yet; root is the section validated."""
    found: dict[Path, Problem] = {}
    for one in invalid.errors(include_url=False):
        problem = _problem(one, source, root)
        found.setdefault(problem.path, problem)
    for known in source.problems:
        found.pop(known.path, None)
    for path, problem in found.items():
        # A list that is no legal word either is wrong in its entries, and pydantic reports both.
        if not any(other != path and other[: len(path)] == path for other in found):
            yield problem


def _problem(found: Mapping[str, Any], source: Source, root: Any) -> Problem:
    path: Path = found["loc"]
    _, place = source.nearest(path)
    kind = found["type"]
    if kind == "missing":
        return Problem(place, path, f"missing; add `{_example(path)}`")
    if kind == "extra_forbidden":
        return Problem(place, path, unknown_setting(path) if root is RunConfig else unknown_in(root, path))
    if kind == "conflict":
        return Problem(place, path, found["msg"])
    if kind == "string_pattern_mismatch" and found["input"]:
        what = f"{shown(found['input'])} is not of the form it takes; write for example `{FORMS[path[-1]]}`"
        return Problem(place, path, what)
    known, member = lookup(path, root)
    stated, place = source.nearest(known)
    if stated != known and found["input"] == "":
        known, member = lookup(stated, root)
    what = _unsuitable(found["input"], known, member, place.text)
    if stated in ADAPTER and not found["input"]:
        what = f"{what}; {ONLY_ADAPTERS}"
    return Problem(place, stated, what)


def _unsuitable(value: Any, path: Path, member: Member, text: str | None) -> str:
    """Why a value is not what a setting takes, and what it takes."""
    takes = describe(*member)
    if value in (None, "", [], ()):
        missing = f"{'has no value' if value is None else 'is empty'}; "
        example = _example(path)
        return missing + (f"write `{example}`" if example else f"give {takes}, or leave it out")
    written = text if text is not None and isinstance(value, (int, float)) else None
    hint = _hint(value, path, member[0], written)
    return f"must be {takes}, not {written or shown(value)}{hint}"


def _example(path: Path) -> str | None:
    """A line that states a required setting; a site file states settings of cluster: without that word."""
    name = dotted(tuple(key for key in path if isinstance(key, str)))
    return EXAMPLES.get(name) or EXAMPLES.get(f"cluster.{name}")


def _hint(value: Any, path: Path, annotation: Any, written: str | None) -> str:
    kinds = [kind for kind, _ in members(annotation)]
    if isinstance(value, str):
        return _hint_for_text(value, path, annotation, kinds)
    if str in kinds and isinstance(value, (int, float)):
        return f"; put it in quotes: '{written or shown(value)}'"
    if int in kinds and isinstance(value, (int, float)) and abs(value) > LARGEST_INTEGER:
        return f"; the largest is {LARGEST_INTEGER}"
    return ""


def _hint_for_text(value: str, path: Path, annotation: Any, kinds: list[Any]) -> str:
    near = closest(value, choices(annotation), cutoff=0.5)
    if near:
        return f"; did you mean {near}?"
    for section in filter(is_section, kinds):
        return _hint_for_section(value, path, section)
    if any(get_origin(kind) is dict for kind in kinds):
        return WITH_COLONS
    lists = any(get_origin(kind) in (list, tuple) for kind in kinds)
    return f"; for a list of one write [{value}]" if lists and value.isidentifier() else ""


def _hint_for_section(value: str, path: Path, section: Any) -> str:
    """The section's first setting, if the text is legal there."""
    first = next(iter(section.model_fields))
    try:
        section.model_validate({first: value})
    except ValidationError:
        return WITH_COLONS
    return WITH_COLONS if ":" in value else f"; set {dotted((*path, first))} instead"
