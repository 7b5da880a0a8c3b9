"""Which local files a name means, and which split each of them belongs to."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from grpo_dist.config.data import SourceSection
from grpo_dist.data.cards import choose_config, config_files, missing_config, read_configs
from grpo_dist.data.wording import listing, nearest, place, set_option
from grpo_dist.errors import DataError

FORMATS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
COMPRESSIONS = (".gz", ".bz2", ".xz")
IGNORED = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""JSON files that describe a data set; `datasets` leaves the same ones out."""

SPLIT_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words `datasets` looks for between separators."""
SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}")

Splits = dict[str, list[Path]]


def format_of(path: str | Path) -> str | None:
    """`json`, `csv` or `parquet` by the suffix, a compression suffix apart; None for anything else."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        inner = FORMATS.get(suffixes[-2]) if len(suffixes) > 1 else None
        return None if inner == "parquet" else inner
    return FORMATS.get(suffixes[-1]) if suffixes else None


def is_local(name: str) -> bool:
    """A path that exists, a pattern, a data file by its suffix, or a name that starts like a path."""
    return (
        os.path.exists(os.path.expanduser(name))
        or _is_pattern(name)
        or format_of(name) is not None
        or name.startswith(("./", "../", "/", "~"))
    )


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def find_files(source: SourceSection) -> Splits:
    """Split → data files, sorted by path, for a local `source.name_or_path`.

    Raises:
        DataError: nothing there, no data file, or files of several formats.
    """
    path = Path(source.name_or_path).expanduser()
    if path.is_dir():
        splits = _in_directory(source, path)
    elif path.exists():
        splits = _one_file(source, path)
    elif _is_pattern(source.name_or_path):
        splits = _in_pattern(source, str(path))
    else:
        raise _no_such_path(source, path)
    _check_format(source, [file for files in splits.values() for file in files])
    return splits


def similar_path(path: Path) -> Path | None:
    """An existing neighbour whose name is like that of a missing path, at the first level that is missing."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    stems = {name.split(".")[0]: name for name in neighbours}
    match = nearest(path.name, neighbours) or stems.get(nearest(path.name, stems) or "")
    return path.parent / match if match else None


def split_of(relative: Path) -> str:
    """The split a file belongs to, by its shard name, its folders or its file name; `train` when none tells."""
    shard = SHARD.match(relative.name)
    if shard:
        return shard[1]
    named = (_keyword_split(part) for part in relative.parts)
    return next((split for split in named if split), "train")


def _keyword_split(name: str) -> str | None:
    for split, words in SPLIT_KEYWORDS.items():
        if re.search(rf"(?:^|[-._ 0-9])(?:{'|'.join(words)})(?:[-._ 0-9]|$)", name, re.IGNORECASE):
            return split
    return None


def _one_file(source: SourceSection, path: Path) -> Splits:
    """A file named by itself is `train`, and the split that its name tells."""
    if format_of(path) is None:
        raise DataError(f"{place(source)}.name_or_path: {path} is not a data file", hint=_known_suffixes())
    return {"train": [path], split_of(Path(path.name)): [path]}


def _in_directory(source: SourceSection, folder: Path) -> Splits:
    configs = read_configs(folder)
    if configs:
        entry = choose_config(source, configs)
        return _listed(source, config_files(folder, entry)) or _walk(source, folder / str(entry.get("data_dir") or ""))
    if source.config is not None:
        subfolder = folder / source.config
        if not subfolder.is_dir():
            raise missing_config(source, sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
        folder = subfolder
    return _walk(source, folder)


def _listed(source: SourceSection, splits: Splits | None) -> Splits | None:
    """Files listed in a README, without the splits that are not on this disk."""
    if splits is None:
        return None
    present = {split: files for split, files in splits.items() if files}
    if not present:
        raise _no_data_file(source, "its README names files that are not there")
    return present


def _walk(source: SourceSection, folder: Path) -> Splits:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path.relative_to(folder))]
    return _by_split(source, folder, files)


def _hidden(relative: Path) -> bool:
    return any(part.startswith((".", "__")) for part in relative.parts)


def _in_pattern(source: SourceSection, pattern: str) -> Splits:
    parts = Path(pattern).parts
    fixed = parts[: next(number for number, part in enumerate(parts) if _is_pattern(part))]
    files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(name)]
    if not files:
        raise DataError(f"{place(source)}.name_or_path: no file matches {source.name_or_path!r}", hint=f"ls {pattern}")
    return _by_split(source, Path(*fixed), files)


def _by_split(source: SourceSection, base: Path, files: Iterable[Path]) -> Splits:
    files = list(files)
    splits: Splits = {}
    for file in files:
        if format_of(file) and file.name not in IGNORED:
            splits.setdefault(split_of(file.relative_to(base)), []).append(file)
    if not splits:
        found = listing(str(file.relative_to(base)) for file in files)
        raise _no_data_file(source, f"found: {found}" if files else "it is empty")
    return splits


def _check_format(source: SourceSection, files: list[Path]) -> None:
    formats = Counter(format_of(file) for file in files)
    if len(formats) > 1:
        amounts = ", ".join(f"{number} {name}" for name, number in sorted(formats.items(), key=str))
        folder = os.path.commonpath([file.parent for file in files])
        suffix = max(Counter("".join(file.suffixes) for file in files).items(), key=lambda item: item[1])[0]
        raise DataError(
            f"{place(source)}.name_or_path: {source.name_or_path} holds files of several formats: {amounts}",
            hint=f"choose with a pattern: {set_option(f'{place(source)}.name_or_path', f'{folder}/**/*{suffix}')}",
        )


def _no_data_file(source: SourceSection, found: str) -> DataError:
    message = f"{place(source)}.name_or_path: no data file in {source.name_or_path} ({found})"
    return DataError(message, hint=_known_suffixes())


def _no_such_path(source: SourceSection, path: Path) -> DataError:
    similar = similar_path(path)
    hint = f"did you mean {similar}?" if similar else f"paths are relative to {os.getcwd()}"
    return DataError(f"{place(source)}.name_or_path: {source.name_or_path} does not exist", hint=hint)


def _known_suffixes() -> str:
    return f"data files end in {', '.join(FORMATS)}; all but .parquet also with {', '.join(COMPRESSIONS)}"
