"""Local data files as a data set in memory: which files a name means, which split each belongs to, and their rows.

Files are read here and not by the builders of `datasets`: an error names file and line, CSV cells and ISO dates in JSON
stay text, and no cache can hold an older version of a file that changed.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import json
import lzma
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from grpo_dist.config.sections import SourceSection
from grpo_dist.data.cards import choose_config, config_files, data_dir, missing_config, read_configs
from grpo_dist.data.json_cells import dataset_of, read_exactly
from grpo_dist.data.text import excerpt, listing, place, set_option
from grpo_dist.errors import DataError
from grpo_dist.text import closest

if TYPE_CHECKING:
    from datasets import Dataset


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
    """`json`, `csv` or `parquet` by the suffix, ignoring a compression suffix; None for anything else."""
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
        DataError: the path does not exist, holds no data file, or files of several formats.
    """
    path = Path(source.name_or_path).expanduser()
    if source.config is not None and not path.is_dir() and (path.exists() or _is_pattern(source.name_or_path)):
        raise missing_config(source, [])
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
    """An existing neighbour with a name similar to a missing path, at the first level that is missing."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    stems = {name.split(".")[0]: name for name in neighbours}
    match = closest(path.name, neighbours) or stems.get(closest(path.name, stems) or "")
    return path.parent / match if match else None


def split_of(relative: Path) -> str:
    """The split a file belongs to, by its shard name, its folders or its file name; `train` when none says."""
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
    """A file given by its own path is `train`, and also the split in its name."""
    if format_of(path) is None:
        raise DataError(f"{place(source)}.name_or_path: {path} is not a data file", hint=_known_suffixes())
    return {"train": [path], split_of(Path(path.name)): [path]}


def _in_directory(source: SourceSection, folder: Path) -> Splits:
    configs = read_configs(folder)
    if configs:
        entry = choose_config(source, configs)
        return _listed(source, config_files(folder, entry)) or _walk(source, data_dir(folder, entry))
    if source.config is not None:
        subfolder = folder / source.config
        if not subfolder.is_dir():
            raise missing_config(source, sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
        folder = subfolder
    return _walk(source, folder)


def _listed(source: SourceSection, splits: Splits | None) -> Splits | None:
    """Files listed in a README, without splits that are not on this disk."""
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


Row = dict[str, Any]

OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LONGEST_CELL = 2**31 - 1


def read_files(paths: list[Path]) -> Dataset:
    """All rows of files of one format, in order.

    Raises:
        DataError: a file cannot be read; the message names the file, and the line in a format with lines.
    """
    if format_of(paths[0]) == "parquet":
        return _read_parquet(paths)
    return from_rows(row for path in paths for row in _rows(path))


def from_rows(rows: Iterable[Row]) -> Dataset:
    """Rows as a data set, each cell with the keys and the type it has in its row; a column that a row lacks is None
    there.

    Raises:
        DataError: a text that is none.
    """
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    try:
        return dataset_of(columns)
    except UnicodeEncodeError as error:
        name, row = next(
            (name, row) for name in names for row, value in enumerate(columns[name], 1) if not _encodable(value)
        )
        raise DataError(f"column {name!r}, row {row}: half a surrogate pair, which is not text ({error})") from error


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_parquet(paths: list[Path]) -> Dataset:
    import pyarrow
    from datasets import Dataset, concatenate_datasets
    from datasets.table import InMemoryTable
    from pyarrow import parquet

    read_exactly()
    parts = []
    for path in paths:
        try:
            parts.append(Dataset(InMemoryTable(parquet.ParquetFile(path).read())))
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{path}: not readable as Parquet: {error}", hint="copy or download the file again"
            ) from error
    try:
        return concatenate_datasets(parts)
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{paths[0].parent}: its Parquet files have different columns: {error}") from error


def _rows(path: Path) -> Iterator[Row]:
    """Rows of a JSON or CSV file; whatever makes it unreadable becomes a DataError."""
    opener = OPENERS.get(path.suffix.lower(), open)
    try:
        # newline="" preserves line breaks inside CSV cells; JSON has none inside a row.
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            yield from _csv_rows(path, stream) if format_of(path) == "csv" else _json_rows(path, stream)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{_undecodable_line(path)}: not UTF-8", hint="save the file as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{path}: nested too deeply to be rows") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint="copy or download the file again") from error


def first_rows_of(path: Path, number: int) -> list[Row]:
    """At most so many rows from the start of a file; of Parquet the names of its columns, with None for each value.

    Raises:
        DataError: they cannot be read.
    """
    if format_of(path) == "parquet":
        return [dict.fromkeys(_parquet_columns(path))]
    return list(islice(_rows(path), number))


def _parquet_columns(path: Path) -> list[str]:
    """Names of the columns; dotted paths into those of objects."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as Parquet: {error}", hint="copy or download the file again") from error
    return list(dict.fromkeys([*file.schema_arrow.names, *(column.path for column in file.schema)]))


def _undecodable_line(path: Path) -> int:
    """The decoder counts bytes from the start of its chunk, which is of no use to the user."""
    with OPENERS.get(path.suffix.lower(), open)(path, "rb") as stream:
        return next(number for number, line in enumerate(stream, 1) if b"\xef\xbf\xbd" in _replaced(line))


def _replaced(line: bytes) -> bytes:
    return line.replace(b"\xef\xbf\xbd", b"").decode(errors="replace").encode()


def _csv_rows(path: Path, stream: IO[str]) -> Iterator[Row]:
    """Cells as text: a CSV has no types, and guessing turns `007` into 7 and `NA` into nothing."""
    # The csv module's limit of 131,072 characters applies to the whole process.
    csv.field_size_limit(LONGEST_CELL)
    delimiter = "\t" if ".tsv" in (suffix.lower() for suffix in path.suffixes) else ","
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{path}:1: two columns have the same name: {', '.join(header)}", hint="rename one of them")
        for cells in reader:
            if cells:
                yield _csv_row(f"{path}:{reader.line_num}", header, cells)
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.line_num}: not CSV: {error}",
            hint='a cell with a comma, a quote or a line break stands in "…", with quotes inside it doubled',
        ) from error


def _csv_row(where: str, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise DataError(
            f"{where}: {len(cells)} cells, but the header has {len(header)}: {', '.join(header)}",
            hint='a cell with a comma stands in "…"',
        )
    return dict(zip(header, cells, strict=True))


def _json_rows(path: Path, stream: IO[str]) -> Iterator[Row]:
    """One object per line, or a whole document: an array of objects, or an object that holds one such array."""
    first = next((line for line in stream if line.strip()), "")
    if not first:
        return iter(())
    stream.seek(0)
    if first.lstrip().startswith("["):
        return _document_rows(path, _parse(str(path), stream.read()))
    if ".json" in (suffix.lower() for suffix in path.suffixes):
        text = stream.read()
        try:
            return _document_rows(path, json.loads(text))
        except json.JSONDecodeError as error:
            if "\n" not in text.strip() or not _is_object(first):
                raise _not_json(f"{path}:{error.lineno}", error) from error
            return _line_rows(path, text.split("\n"))
    return _line_rows(path, stream)


def _line_rows(path: Path, lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _object(f"{path}:{number}", _parse(f"{path}:{number}", line))


def _document_rows(path: Path, document: Any) -> Iterator[Row]:
    rows = _row_list(document) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        kind = f"an object with the keys {', '.join(document)}" if isinstance(document, dict) else excerpt(document)
        raise DataError(
            f"{path}: rows are expected, this is {kind}",
            hint='one object per line (JSONL), an array of objects, or {"data": [ … ]}',
        )
    for number, row in enumerate(rows, 1):
        yield _object(f"{path}, row {number}", row)


def _row_list(document: Row) -> list[Any] | None:
    """The rows of `{"data": [{…}, …]}`, or of the only array of objects under another key."""
    arrays = {key: value for key, value in document.items() if isinstance(value, list) and _all_objects(value)}
    return arrays.get("data") or (next(iter(arrays.values())) if len(arrays) == 1 else None)


def _all_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _object(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: a row is a JSON object, this is {excerpt(row)}", hint='e.g. {"prompt": …, "answer": …}'
        )
    return row


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_json(where if error.lineno == 1 else f"{where}:{error.lineno}", error) from error


def _not_json(where: str, error: json.JSONDecodeError) -> DataError:
    excerpt_of_line = error.doc.split("\n")[error.lineno - 1]
    return DataError(
        f"{where}: not JSON: {error.msg} at column {error.colno}: {excerpt(excerpt_of_line)}",
        hint="a JSONL file has one complete object per line",
    )
