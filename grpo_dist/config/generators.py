"""Generators of reasoning-gym that `data.name_or_path: reasoning_gym/NAME` can name, and their settings.

Read from the sources of the installed package: importing it takes seconds of processor time, and a plan may take half
of one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from grpo_dist.text import closest

PREFIX = "reasoning_gym/"
PACKAGE = "reasoning_gym"
INSTALL = "pip install 'grpo-dist[reasoning-gym]'"
COMPOSITE = "composite"
"""The generator that mixes others: `datasets: [{name, weight, config}]`."""
SPECIFICATION = ("name", "weight", "config")
MOST_LISTED = 30
OWN_GRADES = "reasoning_gym"
"""The reward that grades a generator's problems as the generator does."""
HELDOUT, HELD_OUT = "heldout", 256
"""The split of the problems that are held out, and how many are by default, as in `evaluation.num_problems`."""

_REGISTERED = re.compile(
    r"register_dataset\(\s*(?:\"(?P<name>\w+)\"|(?P<constant>\w+))\s*,\s*\w+\s*,\s*(?P<config>\w+)"
)
_PLAIN = {"int": int, "float": (int, float), "bool": bool, "str": str}

Wrong = tuple[tuple[str | int, ...], str]
"""Path inside the settings, and what is wrong there."""


def is_generated(name: str) -> bool:
    """Whether a data set's name means a generator."""
    return name.startswith(PREFIX)


def is_installed() -> bool:
    """Whether the package can be found; it is not imported."""
    return find_spec(PACKAGE) is not None


def with_own_grades(stated: dict[str, Any]) -> dict[str, Any]:
    """`stated` sections of a run, completed where its problems are generated: they are graded by their generator, and
    those that are held out come from other seeds. Explicit settings win."""
    data = stated.get("data")
    name = data.get("name_or_path") if isinstance(data, dict) else None
    if not (isinstance(name, str) and is_generated(name)):
        return stated
    judging = stated.get("evaluation") or {}
    filled = {**stated, "rewards": _with(stated.get("rewards"), "functions", [OWN_GRADES])}
    filled["evaluation"] = _with(judging, "scorer", OWN_GRADES)
    if data.get("eval_fraction") is None and data.get("eval_split") is None:
        count = judging.get("num_problems", HELD_OUT) if isinstance(judging, dict) else HELD_OUT
        filled["data"] = {**data, "eval_split": f"{HELDOUT}[:{count}]"}
    return filled


def _with(section: Any, setting: str, value: Any) -> Any:
    settings = {} if section is None else section
    return {setting: value, **settings} if isinstance(settings, dict) else section


def wrong_settings(name_or_path: str, settings: Mapping[str, Any]) -> Iterator[Wrong]:
    """What is wrong with the name of a generator and its settings, as far as the sources say; nothing if the package
    is not installed here."""
    if not is_installed():
        return
    name = name_or_path.removeprefix(PREFIX)
    if name not in generators():
        yield ("name_or_path",), f"reasoning-gym has no generator {name!r}; {_meant(name, generators())}"
        return
    for path, what in _wrong(name, settings):
        yield ("generator", *path), what


def _wrong(name: str, settings: Mapping[str, Any]) -> Iterator[Wrong]:
    there = fields(name)
    for key, value in settings.items():
        if key not in there:
            yield (key,), f"{name} has no such setting; {_meant(key, there)}"
        elif not _fits(value, there[key]):
            yield (key,), f"must be {there[key]}, not {value!r}"
    if name == COMPOSITE:
        yield from _wrong_mix(settings.get("datasets"))


def _wrong_mix(listed: Any) -> Iterator[Wrong]:
    example = "datasets: [{name: chain_sum, weight: 2, config: {max_terms: 3}}, {name: leg_counting, weight: 1}]"
    if not (isinstance(listed, list) and listed and all(isinstance(one, dict) for one in listed)):
        yield ("datasets",), f"must list the generators that are mixed, as {example}"
        return
    names = [one.get("name") for one in listed]
    for place, (one, name) in enumerate(zip(listed, names, strict=True)):
        here = ("datasets", place)
        for key in set(one) - {*SPECIFICATION}:
            yield (*here, key), f"no such setting; {_meant(key, SPECIFICATION)}"
        weight = one.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
            yield (*here, "weight"), f"must be a number above 0, not {weight!r}"
        if not isinstance(name, str) or name not in generators() or name == COMPOSITE:
            yield (*here, "name"), f"reasoning-gym has no generator {name!r} to mix; {_meant(str(name), generators())}"
        elif name in names[:place]:
            yield (*here, "name"), f"{name} is listed twice; name each generator once"
        elif not isinstance(one.get("config") or {}, dict):
            yield (*here, "config"), "must be a mapping such as {max_terms: 3}"
        else:
            own = one.get("config") or {}
            for key in {"size", "seed"} & set(own):
                yield (*here, "config", key), "is set for all of them together: data.generator." + key
            for path, what in _wrong(name, own):
                yield (*here, "config", *path), what


def _meant(name: str, names: Collection[str]) -> str:
    close = closest(name, list(names))
    if close:
        return f"did you mean {close}?"
    return f"it has {', '.join(names)}" if len(names) <= MOST_LISTED else "grpo-dist tasks lists them all"


def _fits(value: Any, annotation: str) -> bool:
    kind = _PLAIN.get(annotation)
    return kind is None or (isinstance(value, kind) and (annotation == "bool" or not isinstance(value, bool)))


@dataclass(frozen=True)
class _Source:
    """Where a generator is registered."""

    path: Path
    config: str
    """The name of its configuration class."""


@lru_cache(maxsize=1)
def generators() -> Mapping[str, _Source]:
    """Generators of the installed package, by name; none if it is not installed."""
    spec = find_spec(PACKAGE)
    root = Path(spec.origin).parent if spec and spec.origin else None
    found = {}
    for path in sorted(root.rglob("*.py")) if root else ():
        text = path.read_text("utf-8")
        for one in _REGISTERED.finditer(text) if "register_dataset(" in text else ():
            name = one["name"] or _constant(text, one["constant"])
            if name:
                found[name] = _Source(path, one["config"])
    return dict(sorted(found.items()))


def _constant(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*(?::\s*str\s*)?=\s*[\"'](\w+)[\"']", text, re.MULTILINE)
    return found[1] if found else None


@lru_cache(maxsize=256)
def fields(name: str) -> Mapping[str, str]:
    """The settings of a generator, each with its type as the source writes it."""
    source = generators()[name]
    tree = ast.parse(source.path.read_text("utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return dict(_fields(source.config, classes))


def _fields(name: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[tuple[str, str]]:
    if name not in classes:
        return
    for base in classes[name].bases:
        if isinstance(base, ast.Name):
            yield from _fields(base.id, classes)
    for node in classes[name].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            kind, default = ast.unparse(node.annotation), node.value
            is_float = isinstance(default, ast.Constant) and isinstance(default.value, float)
            yield node.target.id, "float" if kind == "int" and is_float else kind
