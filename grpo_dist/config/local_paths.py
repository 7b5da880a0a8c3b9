"""Which settings of a configuration are paths of this machine, and the same configuration with absolute ones."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar

from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.cluster import ClusterSection
from grpo_dist.config.generators import is_generated
from grpo_dist.config.sections import DataSection, ModelSection, RewardFunction, RunConfig, SourceSection

AnySource = TypeVar("AnySource", bound=SourceSection)
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".gz")
PRESETS = ("recipe", "tokenizer", "none", EMBEDDED)


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The configuration with every relative local path read from the current directory."""
    warm_start = config.warm_start
    return config.model_copy(
        update={
            "model": _model(config.model),
            "data": _prompts(_source(config.data)),
            "warm_start": warm_start and warm_start.model_copy(update={"data": _source(warm_start.data)}),
            "rewards": config.rewards.model_copy(update={"functions": tuple(map(_function, config.rewards.functions))}),
            "cluster": _cluster(config.cluster),
            "evaluation": config.evaluation.model_copy(update={"scorer": _function(config.evaluation.scorer)}),
        }
    )


def local_paths(config: RunConfig) -> list[str]:
    """Paths that a run on other machines must see under the same name: files, directories, and those of patterns."""
    stated = with_absolute_paths(config)
    sources = [stated.data, *([stated.warm_start.data] if stated.warm_start else [])]
    functions = [*stated.rewards.functions, stated.evaluation.scorer]
    found = [
        stated.model.name_or_path,
        stated.model.adapter or "",
        *(_place(source.name_or_path) for source in sources),
        *(text for text in (stated.data.system_prompt, stated.data.chat_template) if text and _exists(text)),
        # A function's file may import its neighbours.
        *(os.path.dirname(function.name.rpartition(":")[0]) for function in functions),
    ]
    return list(dict.fromkeys(path for path in found if path.startswith("/")))


def _place(pattern: str) -> str:
    """The directory a glob looks in; any other path unchanged."""
    plain = re.split(r"[*?\[]", pattern)[0]
    return pattern if plain == pattern else os.path.dirname(plain)


def _cluster(section: ClusterSection) -> ClusterSection:
    container = section.container
    if container is None or not (_looks_local(container.image) or _exists(container.image)):
        return section
    image = _absolute(container.image)
    return section.model_copy(update={"container": container.model_copy(update={"image": image})})


def _model(section: ModelSection) -> ModelSection:
    if section.adapter is not None:
        section = section.model_copy(update={"adapter": _absolute(section.adapter)})
    name = section.name_or_path
    local = name not in PRESETS and (_looks_local(name) or _exists(name))
    return section.model_copy(update={"name_or_path": _absolute(name)}) if local else section


def _source(section: AnySource) -> AnySource:
    name = section.name_or_path
    pattern = any(character in name for character in "*?[") or name.endswith(DATA_SUFFIXES)
    named = name in PRESETS or is_generated(name) or "://" in name
    local = not named and (pattern or _looks_local(name) or _exists(name))
    return section.model_copy(update={"name_or_path": _absolute(name)}) if local else section


def _prompts(section: DataSection) -> DataSection:
    prompt, template = section.system_prompt, section.chat_template
    if prompt is not None and prompt not in PRESETS and Path(prompt).suffix and _exists(prompt):
        section = section.model_copy(update={"system_prompt": _absolute(prompt)})
    if template not in PRESETS:
        section = section.model_copy(update={"chat_template": _absolute(template)})
    return section


def _function(reward: RewardFunction) -> RewardFunction:
    file, colon, function = reward.name.rpartition(":")
    if not (colon and file.endswith(".py")):
        return reward
    return reward.model_copy(update={"name": f"{_absolute(file)}:{function}"})


def _looks_local(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..")


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False  # a long text is not a path; `~nobody` has no home


def _absolute(name: str) -> str:
    try:
        return str(Path(name).expanduser().absolute())
    except RuntimeError:
        return str(Path(name).absolute())  # `~nobody` has no home
