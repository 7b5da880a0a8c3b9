"""The configuration reference, from the schema: every setting, what it takes, its default, the text under the field."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from writing import code, sentence, table

from grpo_dist.config.base import choices, describe, is_section, members
from grpo_dist.config.cluster import SiteSection
from grpo_dist.config.json_schema import documentation
from grpo_dist.config.messages import section_at
from grpo_dist.config.sections import RunConfig
from grpo_dist.config.trl_fields import OWNED, PASSED_ON
from grpo_dist.config.yaml_source import DottedPath

INTRODUCTION = """# Configuration

<!-- Written by `make docs` from grpo_dist/config; edit it there. -->

A configuration is one YAML file; only `model.name_or_path` and `data.name_or_path` have no default. Relative paths
count from the directory the command is called from. `--set a.b=v` overrides one setting. All errors are reported
together, with file, line and the nearest that works.

    grpo-dist init my.yaml           # a commented start
    grpo-dist config show my.yaml    # every default written out
    grpo-dist config schema          # JSON Schema, for completion in an editor
"""
SECTIONS_TEXT = """A section that is left out, or left empty, means its defaults."""
PASSED_ON_TEXT = """Any other field of TRL's `GRPOConfig` may stand here and is passed on unchanged. These take:"""
OWNED_TEXT = """These fields of `GRPOConfig` are refused, for the run or the planner sets them:"""
SITE_TEXT = """In `~/.config/grpo-dist/site.yaml`, or the file that `GRPO_DIST_SITE` names."""
HEAD = ("setting", "default", "")


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    seen: dict[Any, str] = {}
    for path, section in _sections(RunConfig, ()):
        name = _name(path)
        parts += [f"{'##' if len(path) < 2 else '###'} {name}", _about(section)]
        if first := seen.get(section):
            parts += [f"The settings are those of `{first}`."]
            continue
        seen[section] = name
        parts += [_settings(section)]
        if name == "grpo":
            parts += [*_further()]
    return "\n\n".join([*parts, "## Site settings", SITE_TEXT, _about(SiteSection), _settings(SiteSection), ""])


def _sections(section: Any, path: DottedPath) -> Iterator[tuple[DottedPath, Any]]:
    """Each section after the one that holds it; those of a list as its entry 0."""
    yield path, section
    for name in section.model_fields:
        for end in ((), (0,)):
            if inner := section_at((*path, name, *end)):
                yield from _sections(inner, (*path, name, *end))


def _name(path: DottedPath) -> str:
    if not path:
        return "The sections"
    return ".".join(str(key) for key in path if key != 0) + ("[]" if path[-1] == 0 else "")


def _about(section: Any) -> str:
    return SECTIONS_TEXT if section is RunConfig else inspect.cleandoc(section.__doc__)


def _settings(section: Any) -> str:
    texts = documentation(section)
    return table(HEAD, (_row(name, field, texts.get(name, "")) for name, field in section.model_fields.items()))


def _row(name: str, field: FieldInfo, text: str) -> tuple[str, str, str]:
    kinds = [kind for kind, _ in members(field.annotation)]
    if section := next(filter(is_section, kinds), None):
        text, takes = text or _about(section).splitlines()[0], "A section."
    else:
        takes = _items(kinds) or sentence(describe(field.annotation, field.metadata))
    default = "**needed**" if field.is_required() else code(_shown(field.get_default(call_default_factory=True)))
    return code(name), default, f"{text} *{takes}*"


def _items(kinds: list[Any]) -> str | None:
    """Of a list of certain words: those words."""
    words = [word for kind in kinds if get_origin(kind) is tuple for word in choices(get_args(kind)[0])]
    return f"A list of {', '.join(words)}." if words else None


def _further() -> Iterator[str]:
    yield PASSED_ON_TEXT
    yield table(("field", "takes"), ((code(name), describe(kind)) for name, kind in sorted(PASSED_ON.items())))
    yield OWNED_TEXT
    yield table(("field", "instead"), ((code(name), reason) for name, reason in sorted(OWNED.items())))


def _shown(value: Any) -> str:
    """A default as it is written in YAML; a reward by its name, any other section as its own defaults."""
    if isinstance(value, BaseModel):
        return getattr(value, "name", "{}")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
