"""`--set a.b=v`: single settings stated on the command line, over those of the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic_core import PydanticUndefined, to_jsonable_python

from grpo_dist.config.core_schema import construct, resolve
from grpo_dist.config.problems import Path, Place, Problem, Unreadable, dotted, shortened, shown
from grpo_dist.config.rewards import RewardFunction, as_function, as_functions
from grpo_dist.config.schema import lookup, section_at
from grpo_dist.config.yaml_source import UNPRINTABLE, Source, character, read


class _Refused(Exception):
    """An override that cannot be applied; the message reads `what is wrong; what to type`."""


def apply(source: Source, overrides: Sequence[str]) -> Source:
    """The source with every override stated in it, the last one counting; what cannot be applied is a problem."""
    for index, text in enumerate(overrides):
        path = _path(text.partition("=")[0].strip())
        place = Place(f"--set {shortened(text)}", (1, index), path)
        try:
            _apply(source, text, path, place)
        except _Refused as refused:
            source.problems.append(Problem(place, path, str(refused)))
        except Unreadable as unreadable:
            source.problems.append(replace(unreadable.problem, path=(*path, *unreadable.problem.path)))
    return source


def _apply(source: Source, text: str, path: Path, place: Place) -> None:
    _, equals, value = text.partition("=")
    if not equals:
        raise _Refused(f"no `=`; write --set {text.strip() or 'grpo.seed'}=VALUE")
    if "" in path:
        raise _Refused("no setting is named; write --set grpo.seed=VALUE")
    stated = _value(value.strip(), place)
    source.data = _assigned(source.data, path, stated.data, ())
    source.places = {p: there for p, there in source.places.items() if p[: len(path)] != path}
    for depth in range(1, len(path)):
        source.places.setdefault(path[:depth], place)
    source.places |= {(*path, *below): there for below, there in stated.places.items()}
    source.problems += [Problem(p.place, (*path, *p.path), p.what) for p in stated.problems]


def _path(key: str) -> Path:
    path: Path = ()
    for part in key.split("."):
        in_list = lookup((*path, 0))[0] == (*path, 0)
        path = (*path, int(part) if in_list and re.fullmatch("[0-9]{1,4}", part) else part)
    return path


def _value(text: str, place: Place) -> Source:
    """A value as a YAML flow collection, quoted or plain scalar; plain text is taken whole, colons and all."""
    if not text:
        raise _Refused("no value; write null for none, or '' for empty text")
    if text[0] in "[{\"'":
        return read(text, lambda line, column, scalar: replace(place, order=(*place.order, line, column), text=scalar))
    if found := UNPRINTABLE.search(text):
        raise _Refused(f"{character(found.group())}; remove it")
    try:
        return Source(construct(resolve(text), text), {(): replace(place, text=text)})
    except ValueError as wrong:
        raise _Refused(str(wrong)) from wrong


def _assigned(data: Any, path: Path, value: Any, done: Path) -> Any:
    """A copy of the data with a value at a path; sections on the way are made."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    data = _opened(data, done)
    inner = partial(_assigned, path=rest, value=value, done=(*done, key))
    if isinstance(data, dict):
        return {**data, key: inner(data.get(key))}
    if isinstance(data, list):
        index = _index(key, data, done)
        return [*data[:index], inner(data[index]), *data[index + 1 :]]
    raise _Refused(f"{dotted(done)} is {shown(data)}, and has no settings inside")


def _opened(data: Any, path: Path) -> Any:
    """What is at a path, as something with settings inside: shorthands written out, defaults where nothing is."""
    if data is None:
        return _default(path)
    if section_at(path) is RewardFunction:
        return as_function(data)
    return as_functions(data) if section_at((*path, 0)) is RewardFunction else data


def _index(key: str | int, data: list[Any], path: Path) -> int:
    if isinstance(key, int) and key < len(data):
        return key
    entries = {0: "no entries", 1: "one entry, 0"}.get(len(data), f"entries 0 to {len(data) - 1}")
    raise _Refused(f"{dotted(path)} has {entries}; the whole list is set with {dotted(path)}=[a, b]")


def _default(path: Path) -> Any:
    """What the schema puts at a path where nothing is stated."""
    section = section_at(path[:-1])
    if section is None or path[-1] not in section.model_fields:
        return {}
    default = section.model_fields[path[-1]].default
    return {} if default in (None, PydanticUndefined) else to_jsonable_python(default)
