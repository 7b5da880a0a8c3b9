"""A configuration file and overrides → `RunConfig`, or every problem with them.

`--set a.b=v` overrides single settings of the file. Also writes a configuration as text, and compares two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python

from grpo_dist.config import messages, yaml_source
from grpo_dist.config.base import SCALARS, TEXT, construct, is_section, members, resolve
from grpo_dist.config.cluster import SiteSection, site_file, with_site
from grpo_dist.config.local_paths import with_absolute_paths
from grpo_dist.config.messages import ONLY_ADAPTERS, lookup, section_at
from grpo_dist.config.sections import (
    LoraSection,
    RewardFunction,
    RunConfig,
    as_function,
    as_functions,
)
from grpo_dist.config.yaml_source import (
    UNPRINTABLE,
    ConfigProblem,
    DottedPath,
    Place,
    Source,
    UnreadableConfig,
    character,
    dotted,
    read,
    shortened,
    shown,
)
from grpo_dist.errors import ConfigError
from grpo_dist.masking import MASK, hidden, is_secret_name, masked
from grpo_dist.run.directory import PLAN_FILE
from grpo_dist.text import closest

DEEPEST = 50
"""Names in the path of an override."""


class _Refused(Exception):
    """An override that cannot be applied; the message reads `what is wrong; what to type`."""


def apply(source: Source, overrides: Sequence[str]) -> Source:
    """The source with all overrides applied, the last one winning; one that cannot be applied is a problem."""
    for index, text in enumerate(overrides):
        name = text.partition("=")[0].strip()
        if name.count(".") >= DEEPEST:
            what = f"{name.count('.') + 1:,} names one below the other, and no setting is that deep; shorten it"
            source.problems.append(ConfigProblem(Place(f"--set {shortened(text)}", (1, index)), (), what))
            continue
        path, told = _path(name), f"{name}={MASK}" if is_secret_name(name) else shortened(hidden(text))
        place = Place(f"--set {told}", (1, index), path)
        try:
            _apply(source, text, path, place)
        except _Refused as refused:
            source.problems.append(ConfigProblem(place, path, str(refused)))
        except UnreadableConfig as unreadable:
            source.problems.append(replace(unreadable.problem, path=(*path, *unreadable.problem.path)))
    return source


def _apply(source: Source, text: str, path: DottedPath, place: Place) -> None:
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
    source.problems += [ConfigProblem(p.place, (*path, *p.path), p.what) for p in stated.problems]


def _path(key: str) -> DottedPath:
    path: DottedPath = ()
    for part in key.split("."):
        in_list = lookup((*path, 0))[0] == (*path, 0)
        path = (*path, int(part) if in_list and re.fullmatch("[0-9]{1,4}", part) else part)
    return path


def _value(text: str, place: Place) -> Source:
    """A value as a YAML flow collection, quoted or plain scalar; plain text is taken whole, including colons."""
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


def _assigned(data: Any, path: DottedPath, value: Any, done: DottedPath) -> Any:
    """A copy of the data with a value at a path; missing sections on the way are created."""
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


def _opened(data: Any, path: DottedPath) -> Any:
    """The value at a path as a container of settings: shorthands expanded, defaults if nothing is set."""
    if data is None:
        return _default(path)
    if section_at(path) is RewardFunction:
        return as_function(data)
    return as_functions(data) if section_at((*path, 0)) is RewardFunction else data


def _index(key: str | int, data: list[Any], path: DottedPath) -> int:
    if isinstance(key, int) and key < len(data):
        return key
    entries = {0: "no entries", 1: "one entry, 0"}.get(len(data), f"entries 0 to {len(data) - 1}")
    raise _Refused(f"{dotted(path)} has {entries}; the whole list is set with {dotted(path)}=[a, b]")


def _default(path: DottedPath) -> Any:
    """The schema's default at a path."""
    section = section_at(path[:-1])
    if section is None or path[-1] not in section.model_fields:
        return {}
    default = section.model_fields[path[-1]].default
    return {} if default in (None, PydanticUndefined) else to_jsonable_python(default)


NO_ADAPTER = ("none", "null", "no", "off", "false", "full")
LARGEST_FILE = 256 * 1024


def load_config(path: str | Path, overrides: Sequence[str] = (), site: SiteSection | None = None) -> RunConfig:
    """The configuration in a YAML file, with `a.b=v` overrides; relative paths in it become absolute.

    A site's settings apply where neither the file nor an override sets a value.

    Raises:
        ConfigError: one line for each problem: `path:line: setting: what is wrong; what to type`.
    """
    source = apply(read_source(Path(path)), overrides)
    if site:
        source.data = with_site(source.data, site)
    source.problems.extend(without_adapter(source))
    source.problems.extend(null_sections(source))
    source.problems.extend(removed_settings(source, Path(path)))
    config = None
    try:
        config = RunConfig.model_validate(source.data)
    except ValidationError as invalid:
        source.problems.extend(messages.problems(invalid, source))
    if config is None or source.problems:
        raise yaml_source.error(source.problems)
    return with_absolute_paths(config)


OFF = {"evaluation": "--set evaluation.enabled=false"}
REMOVED = {("evaluation", "bootstrap_samples"): "intervals are computed by formula"}
"""(section, setting of an earlier version) → why it is gone."""


def without_adapter(source: Source) -> Iterator[ConfigProblem]:
    """`lora: null`, false or none, which request full fine-tuning; an empty `lora:` means the defaults."""
    if not isinstance(source.data, dict) or "lora" not in source.data:
        return
    stated, place = source.data["lora"], source.nearest(("lora",))[1]
    if (stated is None and place.text) or stated is False or (isinstance(stated, str) and stated.lower() in NO_ADAPTER):
        default = f"leave it out for rank {LoraSection().r}, or state another: --set lora.r=64"
        asked = f"{place.text or shown(stated)} asks for full fine-tuning, and {ONLY_ADAPTERS}"
        yield ConfigProblem(place, ("lora",), f"{asked}; {default}")


def null_sections(source: Source) -> Iterator[ConfigProblem]:
    """Sections set to null, which neither switches them off nor means anything else; an empty one has its defaults."""
    if not isinstance(source.data, dict):
        return
    for name, field in RunConfig.model_fields.items():
        kinds = [kind for kind, _ in members(field.annotation)]
        place = source.nearest((name,))[1]
        is_null = name in source.data and source.data[name] is None and bool(place.text)
        if is_null and name != "lora" and len(kinds) == 1 and is_section(kinds[0]) and not field.is_required():
            off = f", or switch it off: {OFF[name]}" if name in OFF else ""
            yield ConfigProblem(place, (name,), f"a group of settings cannot be null; leave it out for defaults{off}")


def removed_settings(source: Source, path: Path) -> Iterator[ConfigProblem]:
    """Settings of earlier versions. In the configuration of a run, which has a plan beside it, they are dropped."""
    for section, name in REMOVED:
        settings = source.data.get(section) if isinstance(source.data, dict) else None
        if not isinstance(settings, dict) or name not in settings:
            continue
        _, place = source.nearest((section, name))
        if not place.label.startswith("--set") and path.with_name(PLAN_FILE).is_file():
            source.data = {**source.data, section: {key: settings[key] for key in settings if key != name}}
        else:
            yield ConfigProblem(place, (section, name), f"was removed: {REMOVED[section, name]}; remove it")


def load_site() -> SiteSection | None:
    """The site settings, None if there is no such file.

    Raises:
        ConfigError: as `load_config`; or the file that GRPO_DIST_SITE names does not exist.
    """
    path, named = site_file()
    if not (named or path.is_file()):
        return None
    source = read_source(path, needs="the settings of this site, e.g. partition: gpu")
    site = None
    try:
        site = SiteSection.model_validate(source.data)
    except ValidationError as invalid:
        source.problems.extend(messages.problems(invalid, source, SiteSection))
    if site is None or source.problems:
        raise yaml_source.error(source.problems)
    return site


def read_source(path: Path, needs: str = "at least the sections model: and data:") -> Source:
    """The contents of a file, checked only for being YAML with sections.

    Raises:
        ConfigError: the file cannot be read, or is not that.
    """
    text = _text(path)

    def place(line: int, column: int, scalar: str | None) -> Place:
        return Place(f"{path}:{line}", (0, line, column), None, scalar)

    try:
        source = yaml_source.read(text, place)
    except UnreadableConfig as unreadable:
        raise yaml_source.error([unreadable.problem]) from unreadable
    if source.data is None and not source.problems:
        raise ConfigError(f"{path}: the file is empty; it needs {needs}")
    if not isinstance(source.data, dict):
        source.problems.append(ConfigProblem(source.places[()], (), _no_sections(source.data)))
        raise yaml_source.error(source.problems)
    return source


def _no_sections(data: object) -> str:
    return (
        f"{yaml_source.shown(data)} where sections belong; write model:, data: and so on, each with a colon and a space"
    )


def _text(path: Path) -> str:
    content = _content(path)
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{path}: larger than {LARGEST_FILE // 1024} KiB; is this a configuration?")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        byte = content[wrong.start]
        what = f"not UTF-8 text (byte {byte:#04x} at offset {wrong.start}); save the file as UTF-8"
        raise ConfigError(yaml_source.visible(f"{path}:{line}: {what}")) from wrong


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        what = f"there is no such file{_instead(path)}"
    except IsADirectoryError:
        what = f"a directory, not a file{_instead(path)}"
    except OSError as wrong:
        what = f"the file cannot be read: {(wrong.strerror or str(wrong)).lower()}"
    except ValueError:
        what = "no file has such a name"
    raise ConfigError(yaml_source.visible(f"{path}: {what}"))


def _instead(path: Path) -> str:
    """The existing configuration with the most similar name, or all of them if there are few."""
    places = [path] if path.is_dir() else [path.parent, Path("configs")]
    there = {str(file) for place in places if place.is_dir() for file in place.glob("*.yaml")}
    by_stem = {Path(name).stem: name for name in sorted(there)}
    if near := closest(path.stem, by_stem):
        return f"; did you mean {by_stem[near]}?"
    return f"; there is {', '.join(sorted(by_stem.values())[:8])}" if by_stem else "; write the path of a YAML file"


Difference = tuple[str, Any, Any]


def dump_config(config: RunConfig, *, public: bool = False) -> str:
    """The configuration as YAML with every default written out and local paths absolute.

    Equal configurations give equal text, and `load_config` of the text gives the configuration back.

    Args:
        public: for others to read: secrets are hidden.
    """
    plain = masked(_resolved(config)) if public else _resolved(config)
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def config_differences(a: RunConfig, b: RunConfig) -> list[Difference]:
    """(dotted setting, its value in a, its value in b) where they differ; lists are compared as a whole, absent is
    None."""
    return list(_differences(_resolved(a), _resolved(b), ""))


def listed_differences(differences: Iterable[Difference], before: str) -> str:
    """One line for each difference, without secrets. `before`: where the first values are, such as "in the run"."""
    lines = (f"{name}: {masked(was, name)!r} {before}, {masked(now, name)!r} now" for name, was, now in differences)
    return "\n".join(f"  {line}" for line in lines)


def _resolved(config: RunConfig) -> dict[str, Any]:
    """Plain data; TRL's further fields, whose order does not matter, follow ours sorted by name."""
    plain = with_absolute_paths(config).model_dump(mode="json")
    for name in sorted(config.grpo.model_extra or {}):
        plain["grpo"][name] = plain["grpo"].pop(name)
    return plain


def _differences(a: Any, b: Any, dotted: str) -> Iterator[Difference]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from _differences(a.get(key), b.get(key), f"{dotted}.{key}" if dotted else key)
    elif a != b:
        yield dotted, a, b


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1, or our reading of YAML 1.2, would not read as text."""


def _yaml_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML writes some line breaks other than \n as they are, and reads them back as spaces.
    style = '"' if not text.replace("\n", "").isprintable() else "|" if "\n" in text else None
    return dumper.represent_scalar(TEXT, text, style=style)


_Dumper.add_representer(str, _yaml_text)
for _tag, (_spelling, _first) in SCALARS.items():
    _Dumper.add_implicit_resolver(_tag, _spelling, list(_first))
