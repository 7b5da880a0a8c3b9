"""Looks at local data and reward files before anything is started, without `datasets` and without running a reward.

Everything that is missing is reported at once, with settings that fix it. What needs all rows, or the Hub, is left
to the preparation.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.config.base import EMBEDDED
from grpo_dist.config.sections import DataSection, RewardFunction, SourceSection
from grpo_dist.data.columns import cell_at, guess_column, leaves
from grpo_dist.data.hub import check_id
from grpo_dist.data.problems import EXTRACTORS, TOLERATED, only_one
from grpo_dist.data.readers import Splits, find_files, first_rows_of, is_local
from grpo_dist.data.sources import is_saved_to_disk, split_names
from grpo_dist.data.text import as_text, excerpt, is_missing, listing, place, set_option
from grpo_dist.errors import DataError, PlanError
from grpo_dist.rewards.names import FROM_TRL, is_users, member_names
from grpo_dist.text import closest

ROWS = 50
"""Rows that are looked at."""
Setting = str | Mapping[str, str] | None
"""None is null."""


@dataclass(frozen=True)
class Lack:
    """Something that is missing, and settings that fix it, if any are likely."""

    what: str
    settings: Mapping[str, Setting] = field(default_factory=dict)


def check_early(config: RunConfig, *, elsewhere: bool = False) -> None:
    """Check that the local data has the splits, columns and answers that the run reads, and that the functions exist.

    Args:
        elsewhere: the run is for other machines; data that is not on this one is not looked for.

    Raises:
        PlanError: something is missing; the message lists it all.
    """
    judges = (config.evaluation.scorer,) if config.evaluation.enabled else ()
    lacks = list(_of_functions("rewards.functions", config.rewards.functions))
    lacks += _of_functions("evaluation.scorer", judges)
    columns = {name for one in (*config.rewards.functions, *judges) for name in columns_of(one)}
    try:
        lacks += _of_data(config.data, ("prompt", *sorted(columns)), config.evaluation.enabled, elsewhere)
        if config.warm_start:
            lacks += _of_data(config.warm_start.data, ("prompt",), False, elsewhere)
    except DataError as error:
        raise PlanError(error.message, hint=error.hint) from error
    if lacks:
        settings = {name: value for lack in lacks for name, value in lack.settings.items()}
        hint = " ".join(
            f"--set {name}=null" if value is None else set_option(name, value) for name, value in settings.items()
        )
        raise PlanError("\n".join(lack.what for lack in lacks), hint=hint or None)


def _of_data(source: SourceSection, needed: Sequence[str], hold_out: bool, elsewhere: bool) -> Iterator[Lack]:
    name = source.name_or_path
    path = Path(name).expanduser()
    if name == EMBEDDED or is_saved_to_disk(path) or (elsewhere and not path.exists()):
        return
    if not is_local(name):
        check_id(source)
        return
    if source.config is not None and not path.is_dir():
        what = f"{place(source)}.config: {name} has no configurations, {source.config!r} was asked for"
        yield Lack(what, {f"{place(source)}.config": None})
        source = source.model_copy(update={"config": None})
    files = find_files(source)
    yield from _of_splits(source, files, hold_out)
    rows = first_rows_of(_files_of(source, files)[0], ROWS)
    if rows:
        yield from _of_columns(source, rows, needed)
    if isinstance(source, DataSection) and "answer" in needed:
        yield from _of_answers(source, rows)


def _of_splits(source: SourceSection, files: Splits, hold_out: bool) -> Iterator[Lack]:
    there = f"{source.name_or_path} has only {listing(files)}"
    for name in split_names(source.split):
        if name not in files:
            guess = closest(name, files) or next(iter(files))
            yield Lack(f"{place(source)}.split: no split {name!r}; {there}", {f"{place(source)}.split": guess})
    held = source.eval_split if isinstance(source, DataSection) and hold_out else None
    if held is not None and any(name not in files for name in split_names(held)):
        what = f"data.eval_split: no split {held!r}; {there}; without one, a fraction of the problems is held out"
        yield Lack(what, {"data.eval_split": None})


def _files_of(source: SourceSection, files: Splits) -> list[Path]:
    """Files of the split to train on, or of any if it does not exist."""
    return next((files[name] for name in split_names(source.split) if name in files), next(iter(files.values())))


def _of_columns(source: SourceSection, rows: Sequence[dict[str, Any]], needed: Iterable[str]) -> list[Lack]:
    theirs = {name: name for name in needed} | source.columns
    missing = {ours: name for ours, name in theirs.items() if not _is_there(rows, name)}
    if not missing:
        return []
    there = list(dict.fromkeys(path for name, value in rows[0].items() for path in leaves(name, value)))
    guesses = {ours: guess for ours, name in missing.items() if (guess := guess_column(ours, name, there))}
    wanted = ", ".join(repr(name) if ours == name else f"{name!r} (for {ours!r})" for ours, name in missing.items())
    what = f"{place(source)}.columns: {source.name_or_path} has no column {wanted}; there is: {listing(there)}"
    if unknown := [ours for ours in missing if ours not in guesses]:
        what += f"; name the one that is meant: --set {place(source)}.columns.{unknown[0]}=COLUMN"
        if "answer" in unknown:
            what += ", or take rewards and an evaluation.scorer that read no answer"
    settings: dict[str, Setting] = {f"{place(source)}.columns": dict(source.columns) | guesses} if guesses else {}
    return [Lack(what, settings)]


def _is_there(rows: Sequence[dict[str, Any]], name: str) -> bool:
    """Whether a column, or the dotted path into one, occurs in a row."""
    return any(name in row or cell_at(row, name.split(".")) is not None for row in rows)


def _of_answers(section: DataSection, rows: Sequence[dict[str, Any]]) -> Iterator[Lack]:
    """What the extractor does not find; a cell of another form than text is left to the preparation."""
    extract, column = EXTRACTORS[section.answer_extractor], section.columns.get("answer", "answer")
    cells = [only_one(row[column] if column in row else cell_at(row, column.split("."))) for row in rows]
    texts = [as_text(cell) for cell in cells if not is_missing(cell) and not isinstance(cell, (list, dict))]
    unread = [text for text in texts if extract(text) is None]
    if len(unread) <= TOLERATED * len(texts):
        return
    fitting = [name for name in ("boxed", "gsm8k") if all(EXTRACTORS[name](text) is not None for text in texts)]
    what = (
        f"data.answer_extractor: {section.answer_extractor!r} finds no answer in {len(unread)} of the first "
        f"{len(texts)} rows, as in {excerpt(unread[0])}"
    )
    yield Lack(what, {"data.answer_extractor": (*fitting, "none")[0]})


def columns_of(reward: RewardFunction) -> set[str]:
    """Columns that a function reads, as far as its signature tells without running its file."""
    if is_users(reward.name):
        found = _function(reward.name)
        return set() if found is None else _required(found) - {*FROM_TRL, *reward.kwargs}
    from grpo_dist.rewards import REWARDS

    members = [name for name in member_names(reward.name) if name in REWARDS]
    return {"answer"} if any("answer" in REWARDS[name].__code__.co_varnames for name in members) else set()


def _required(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Names of the parameters without a default; none of a decorated function, which may have others."""
    if function.decorator_list:
        return set()
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = positional[: len(positional) - len(arguments.defaults)]
    required += [one for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if not default]
    return {one.arg for one in required}


def _function(name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    file, _, attribute = name.rpartition(":")
    found = [one for one in _statements(file) if getattr(one, "name", None) == attribute]
    return found[-1] if found and isinstance(found[-1], (ast.FunctionDef, ast.AsyncFunctionDef)) else None


def _statements(file: str) -> list[ast.stmt]:
    """The statements of a file; none of a module, of what is missing, and of what is not Python."""
    try:
        return ast.parse(Path(file).expanduser().read_bytes()).body if file.endswith(".py") else []
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []


def _of_functions(setting: str, functions: Sequence[RewardFunction]) -> Iterator[Lack]:
    for index, function in enumerate(functions):
        file, _, attribute = function.name.rpartition(":")
        path = Path(file).expanduser()
        if not file.endswith(".py") or not path.is_file():
            continue
        at = f"{setting}.{index}" if setting == "rewards.functions" else setting
        try:
            names = _names(ast.parse(path.read_bytes()).body)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            yield Lack(f"{at}.name: {path}{f':{line}' if line else ''}: not Python: {getattr(error, 'msg', error)}")
            continue
        if names is not None and attribute not in names:
            near = closest(attribute, names)
            what = f"{at}.name: {path} has no {attribute!r}; it has {listing(names) or 'no functions'}"
            yield Lack(what, {f"{at}.name": f"{file}:{near}"} if near else {})


def _names(body: Sequence[ast.stmt]) -> list[str] | None:
    """What a module defines or imports at its top; None if that cannot be told."""
    names: list[str] = []
    for one in body:
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.append(one.name)
        elif isinstance(one, (ast.Import, ast.ImportFrom)):
            names += [alias.asname or alias.name.partition(".")[0] for alias in one.names]
        elif isinstance(one, ast.Assign):
            names += [target.id for target in one.targets if isinstance(target, ast.Name)]
        elif not isinstance(one, (ast.Expr, ast.AnnAssign, ast.Pass)):
            return None  # an `if` or a `try` may define anything
    return None if "*" in names else names
