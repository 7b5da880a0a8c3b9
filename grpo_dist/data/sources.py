"""Rows of a data set, wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from grpo_dist.config.data import SourceSection
from grpo_dist.config.section import EMBEDDED
from grpo_dist.data.files import find_files, is_local
from grpo_dist.data.hub import load_from_hub
from grpo_dist.data.readers import read_files
from grpo_dist.data.splits import check_splits, parse_split, split_names, take_split
from grpo_dist.data.wording import place
from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def load_rows(source: SourceSection, split: str) -> Dataset:
    """The rows of `split`, or of a slice like `train[:1000]`, in memory and with the columns they come with.

    A name is local when it exists, is a pattern, has the suffix of a data file or starts like a path; otherwise it is
    the id of a data set on the Hub. No code of a data set is ever run.

    Raises:
        DataError: not reachable, not readable, no such configuration or split, or no row in it.
    """
    if source.name_or_path == EMBEDDED:
        raise DataError(
            f"{place(source)}.name_or_path: the embedded problems belong to the embedded model",
            hint="--set model.name_or_path=embedded, or name a data set",
        )
    instruction = parse_split(source, split)
    if not is_local(source.name_or_path):
        rows = load_from_hub(source, split)
    else:
        rows = take_split(instruction, _local_splits(source, split))
    if len(rows) == 0:
        raise DataError(f"{place(source)}.name_or_path: {source.name_or_path} has no rows in split {split!r}")
    return rows


def _local_splits(source: SourceSection, split: str) -> dict[str, Dataset]:
    saved = _saved_to_disk(Path(source.name_or_path).expanduser())
    if saved is not None:
        check_splits(source, split, saved)
        return saved
    files = find_files(source)
    check_splits(source, split, files)
    return {name: read_files(files[name]) for name in split_names(split)}


def _saved_to_disk(folder: Path) -> dict[str, Dataset] | None:
    """Splits of a folder written by `save_to_disk`; None for any other path."""
    if not ((folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()):
        return None
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(folder), keep_in_memory=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: not a complete data set of save_to_disk: {error}", hint="save it again") from error
    return dict(saved) if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
