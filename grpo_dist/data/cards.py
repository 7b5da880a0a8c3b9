"""The README of a data set folder: which configurations it has and which files belong to each.

In a Hub repository downloaded as a folder, only the README distinguishes the subsets.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

import yaml

from grpo_dist.config.sections import SourceSection
from grpo_dist.data.text import listing, place, set_option
from grpo_dist.errors import DataError
from grpo_dist.text import closest

DEFAULT_SPLIT = "train"


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Configuration name → its entry under `configs:` in the README's front matter; empty if there is none.

    Raises:
        DataError: the front matter is not YAML.
    """
    card = folder / "README.md"
    if not card.is_file():
        return {}
    lines = card.read_text(encoding="utf-8", errors="replace").split("\n")
    if lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return {}
    end = next(number for number, line in enumerate(lines) if number and line.strip() == "---")
    try:
        front = yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise DataError(
            f"{card}: the front matter is not YAML: {error}", hint="correct it, or remove the file"
        ) from error
    entries = front.get("configs") if isinstance(front, dict) else None
    known = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {str(entry.get("config_name", "default")): entry for entry in known}


def choose_config(source: SourceSection, configs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The requested configuration, or the default one.

    Raises:
        DataError: it does not exist, or several do and none was named.
    """
    if source.config in configs:
        return configs[source.config]
    if source.config is not None:
        raise missing_config(source, list(configs))
    if len(configs) == 1:
        return next(iter(configs.values()))
    marked = [entry for name, entry in configs.items() if entry.get("default") or name == "default"]
    if marked:
        return marked[0]
    raise DataError(
        f"{place(source)}.config: {source.name_or_path} has several configurations: {listing(configs)}",
        hint=set_option(f"{place(source)}.config", next(iter(configs))),
    )


def missing_config(source: SourceSection, names: list[str]) -> DataError:
    """The error that lists the available configurations."""
    if not names:
        return DataError(
            f"{place(source)}.config: {source.name_or_path} has no configurations, {source.config!r} was asked for",
            hint=f"leave it out: --set {place(source)}.config=null",
        )
    asked = f"{source.name_or_path} has no configuration {source.config!r}"
    return DataError(
        f"{place(source)}.config: {asked}; there is: {listing(names)}",
        hint=set_option(f"{place(source)}.config", closest(source.config or "", names) or names[0]),
    )


def config_files(folder: Path, entry: dict[str, Any]) -> dict[str, list[Path]] | None:
    """Split → files of a configuration; None when its entry names no files.

    Raises:
        DataError: it names files outside of the folder: who wrote the card is not who reads the data.
    """
    base = data_dir(folder, entry)
    data_files = entry.get("data_files")
    if data_files is None:
        return None
    files = {split: _expand(base, patterns) for split, patterns in _patterns(data_files).items()}
    for path in (path for paths in files.values() for path in paths):
        _check_inside(folder, path, "data_files")
    return files


def data_dir(folder: Path, entry: dict[str, Any]) -> Path:
    """The folder with the files of a configuration.

    Raises:
        DataError: it is outside of that of the data set.
    """
    base = folder / str(entry.get("data_dir") or "")
    _check_inside(folder, base, "data_dir")
    return base


def _check_inside(folder: Path, path: Path, name: str) -> None:
    """A link inside may lead elsewhere, as in the Hub's cache; whoever made the folder made it."""
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
        raise DataError(
            f"{folder / 'README.md'}: {name} leads out of the folder, to {path}",
            hint="correct it, or remove the file and name the data file itself as data.name_or_path",
        )


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """`data_files` in any of its spellings: a pattern, a list of them, {split: path}, or a list of {split, path}."""
    items = data_files if isinstance(data_files, list) else [data_files]
    patterns: dict[str, list[str]] = {}
    for item in items:
        for split, paths in _of_splits(item).items():
            patterns.setdefault(split, []).extend(map(str, paths if isinstance(paths, list) else [paths]))
    return patterns


def _of_splits(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {DEFAULT_SPLIT: item}
    return {str(item.get("split", DEFAULT_SPLIT)): item["path"]} if "path" in item else item


def _expand(base: Path, patterns: list[str]) -> list[Path]:
    """Files that match, sorted; characters of `base` itself are never part of the pattern."""
    found = {base / name for pattern in patterns for name in glob.glob(pattern, root_dir=base, recursive=True)}
    return sorted(path for path in found if path.is_file())
