"""From `package.module:function` or `path/to/file.py:function` to the function."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from grpo_dist.errors import RewardError
from grpo_dist.rewards.neighbours import folder_package, load_file
from grpo_dist.rewards.own import random_numbers_apart


def resolve(name: str) -> Callable:
    """The function of the user that `name` points at; a path is relative to the current directory.

    RewardError when the place does not exist, its import fails, or what is there cannot be called the
    way TRL calls rewards.
    """
    place, _, attribute = name.rpartition(":")
    if not (place and attribute):
        raise RewardError(
            f"reward '{name}' names no function", hint="write package.module:function or path/file.py:function"
        )
    module = _file_module(name, place) if place.endswith(".py") else _module(name, place)
    function = getattr(module, attribute, None)
    if function is None:
        raise RewardError(f"reward '{name}': {place} has no '{attribute}'", hint=_attribute_hint(module, attribute))
    _check_callable(name, function)
    return function


def parameters_of(function: Callable) -> tuple[inspect.Parameter, ...]:
    """Parameters of the function itself, not of one it wraps; () for compiled code without a signature."""
    try:
        return tuple(inspect.signature(function, follow_wrapped=False).parameters.values())
    except ValueError:
        return ()


def _file_module(name: str, place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise RewardError(
            f"reward '{name}': there is no file {path}", hint="give the path relative to the directory you start in"
        )
    try:
        with random_numbers_apart(f"import {path}"):
            return load_file(path)
    except BaseException as error:
        _raise_import_failed(name, error, path.parent)


def _module(name: str, place: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that nothing here hides an installed module
    try:
        with random_numbers_apart(f"import {place}"):
            return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(error.name + ".")):
            raise RewardError(
                f"reward '{name}': there is no module {error.name}",
                hint="install it, start in the directory that contains it, or write path/to/file.py:function",
            ) from error
        _raise_import_failed(name, error)
    except BaseException as error:
        _raise_import_failed(name, error)


def _raise_import_failed(name: str, error: BaseException, folder: Path | None = None) -> NoReturn:
    """RewardError for what user code may raise on import, SystemExit included; other signals pass."""
    if not isinstance(error, Exception | SystemExit):
        raise error
    hint = "import it in a Python of its own to see the whole traceback"
    if folder is not None and isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.rpartition(f"{folder_package(folder)}.")[2]
        hint = f"put {missing.replace('.', '/')}.py into {folder}, where the reward file is, or install it"
    raise RewardError(f"reward '{name}' cannot be imported: {type(error).__name__}: {error}", hint=hint) from error


def _attribute_hint(module: ModuleType, attribute: str) -> str:
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    close = difflib.get_close_matches(attribute, functions, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"its functions are: {', '.join(functions)}" if functions else "it defines no functions"


def _check_callable(name: str, function: object) -> None:
    if not callable(function) or isinstance(function, type):
        kind = "a class" if isinstance(function, type) else f"a {type(function).__name__}"
        raise RewardError(
            f"reward '{name}' is {kind}, not a function", hint="point at a function f(prompts, completions, **columns)"
        )
    parameters = parameters_of(function)
    if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise RewardError(
            f"reward '{name}' does not take **kwargs, but the trainer passes every column of the data set and more",
            hint=f"def {name.rpartition(':')[2]}(prompts, completions, **kwargs)",
        )
