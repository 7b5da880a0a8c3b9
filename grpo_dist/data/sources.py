"""Rows of a data set, local or on the Hub, and the split specifications that select them.

Specifications are spelt as in `datasets`: `train`, `train[:1000]`, `train[10%:20%]`, `train+test`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.generators import is_generated
from grpo_dist.config.sections import DataSection, SourceSection
from grpo_dist.data.generated import generated_rows, sizes
from grpo_dist.data.hub import load_from_hub
from grpo_dist.data.json_cells import read_exactly
from grpo_dist.data.readers import find_files, from_rows, is_local, read_files
from grpo_dist.data.text import listing, place, set_option
from grpo_dist.errors import DataError
from grpo_dist.text import closest

if TYPE_CHECKING:
    from datasets import Dataset, ReadInstruction


def split_names(spec: str) -> list[str]:
    """Names in a split specification, without their slices: `train[:10]+test` → `["train", "test"]`."""
    return [part.split("[")[0].split("(")[0].strip() for part in spec.split("+")]


def parse_split(source: SourceSection, spec: str) -> ReadInstruction:
    """Check a split specification before anything is read.

    Raises:
        DataError: `datasets` does not understand it.
    """
    from datasets import ReadInstruction

    try:
        return ReadInstruction.from_spec(spec)
    except (ValueError, AssertionError) as error:
        raise DataError(
            f"{place(source)}.split: {spec!r} is not a split or a slice of one ({error})",
            hint="e.g. train, train[:1000], train[10%:20%] or train+test",
        ) from error


def check_splits(source: SourceSection, spec: str, names: Mapping[str, object]) -> None:
    """Raise DataError when a requested split does not exist."""
    for name in split_names(spec):
        if name not in names:
            raise missing_split(source, name, list(names), spec)


def missing_split(source: SourceSection, name: str, names: list[str], spec: str) -> DataError:
    """The error that lists the available splits.

    Args:
        spec: the setting that names it, `split` or `eval_split`.
    """
    held_out = isinstance(source, DataSection) and spec == source.eval_split
    setting = f"{place(source)}.{'eval_split' if held_out else 'split'}"
    others = [one for one in names if not (held_out and one in split_names(source.split))]
    guess = closest(name, others) or (None if held_out else names[0])
    return DataError(
        f"{setting}: {source.name_or_path} has no split {name!r}; there is: {listing(names)}",
        hint=set_option(setting, guess) if guess else f"--set {setting}=null holds out a fraction of the problems",
    )


def take_split(instruction: ReadInstruction, splits: Mapping[str, Dataset]) -> Dataset:
    """The rows that the instruction selects, in its order."""
    from datasets import concatenate_datasets

    pieces = instruction.to_absolute({name: len(rows) for name, rows in splits.items()})
    parts = [splits[piece.splitname].select(range(piece.from_, max(piece.from_, piece.to))) for piece in pieces]
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


def load_rows(source: SourceSection, split: str) -> Dataset:
    """The rows of `split`, or of a slice like `train[:1000]`, in memory, with their original columns.

    The problems of a generator are made here. A name is local when it exists, is a pattern, has the suffix of a data
    file or starts like a path; otherwise it is the id of a data set on the Hub. Code in its repository is never run.

    Raises:
        DataError: not reachable, not readable, no such configuration or split, or no row in it.
    """
    if source.name_or_path == EMBEDDED:
        raise DataError(
            f"{place(source)}.name_or_path: the embedded problems belong to the embedded model",
            hint="--set model.name_or_path=embedded, or name a data set",
        )
    read_exactly()
    instruction = parse_split(source, split)
    if is_generated(source.name_or_path):
        rows = _generated(source, split, instruction)
    elif not is_local(source.name_or_path):
        rows = load_from_hub(source, split)
    else:
        rows = take_split(instruction, _local_splits(source, split))
    if len(rows) == 0:
        raise DataError(f"{place(source)}.name_or_path: {source.name_or_path} has no rows in split {split!r}")
    return rows


def _generated(source: SourceSection, split: str, instruction: ReadInstruction) -> Dataset:
    settings = source.generator if isinstance(source, DataSection) else {}
    there = sizes(settings)
    check_splits(source, split, there)
    pieces = instruction.to_absolute(there)
    wanted = [(one.splitname, range(one.from_, max(one.from_, one.to))) for one in pieces]
    return from_rows(generated_rows(source.name_or_path, settings, wanted))


def _local_splits(source: SourceSection, split: str) -> dict[str, Dataset]:
    saved = _saved_to_disk(Path(source.name_or_path).expanduser())
    if saved is not None:
        check_splits(source, split, saved)
        return saved
    files = find_files(source)
    check_splits(source, split, files)
    return {name: read_files(files[name]) for name in split_names(split)}


def is_saved_to_disk(folder: Path) -> bool:
    """Whether `save_to_disk` has written the folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _saved_to_disk(folder: Path) -> dict[str, Dataset] | None:
    """Splits of a folder written by `save_to_disk`; None for any other path."""
    if not is_saved_to_disk(folder):
        return None
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(folder), keep_in_memory=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: not a complete data set of save_to_disk: {error}", hint="save it again") from error
    return dict(saved) if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
