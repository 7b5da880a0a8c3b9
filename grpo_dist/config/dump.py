"""A configuration as text and as differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from grpo_dist.config.core_schema import SCALARS, TEXT
from grpo_dist.config.local_paths import with_absolute_paths
from grpo_dist.config.run import RunConfig

Difference = tuple[str, Any, Any]


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML with every default written out and local paths absolute.

    Equal configurations give equal text, and `load_config` of the text gives the configuration back.
    """
    return yaml.dump(_resolved(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def config_differences(a: RunConfig, b: RunConfig) -> list[Difference]:
    """(dotted setting, its value in a, its value in b) where they differ; lists are compared whole, absent is None."""
    return list(_differences(_resolved(a), _resolved(b), ""))


def _resolved(config: RunConfig) -> dict[str, Any]:
    """Plain data; TRL's further fields, which come in any order, follow ours by name."""
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
    """Quotes what YAML 1.1 or our reading of YAML 1.2 would take for something other than text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML writes some line breaks other than \n as they are, and reads them back as spaces.
    style = '"' if not text.replace("\n", "").isprintable() else "|" if "\n" in text else None
    return dumper.represent_scalar(TEXT, text, style=style)


_Dumper.add_representer(str, _text)
for _tag, (_spelling, _first) in SCALARS.items():
    _Dumper.add_implicit_resolver(_tag, _spelling, list(_first))
