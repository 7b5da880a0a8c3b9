"""Splits and slices of them, as `datasets` spells them: `train`, `train[:1000]`, `train[10%:20%]`, `train+test`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from grpo_dist.config.data import SourceSection
from grpo_dist.data.wording import listing, nearest, place, set_option
from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset, ReadInstruction


def split_names(spec: str) -> list[str]:
    """Names in a split specification, without their slices: `train[:10]+test` → `["train", "test"]`."""
    return [part.split("[")[0].split("(")[0].strip() for part in spec.split("+")]


def parse_split(source: SourceSection, spec: str) -> ReadInstruction:
    """Check a split specification before anything is read.

    Raises:
        DataError: it is none that `datasets` understands.
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
    """Raise DataError when a split is asked for that is not there."""
    for name in split_names(spec):
        if name not in names:
            raise missing_split(source, name, list(names))


def missing_split(source: SourceSection, name: str, names: list[str]) -> DataError:
    """The error that lists the splits there are."""
    guess = nearest(name, names) or names[0]
    return DataError(
        f"{place(source)}.split: {source.name_or_path} has no split {name!r}; there is: {listing(names)}",
        hint=set_option(f"{place(source)}.split", guess),
    )


def take_split(instruction: ReadInstruction, splits: Mapping[str, Dataset]) -> Dataset:
    """The rows that the instruction names, in its order."""
    from datasets import concatenate_datasets

    pieces = instruction.to_absolute({name: len(rows) for name, rows in splits.items()})
    parts = [splits[piece.splitname].select(range(piece.from_, max(piece.from_, piece.to))) for piece in pieces]
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)
