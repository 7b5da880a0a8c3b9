"""From the names in the configuration to callable rewards: found, imported, bound to their arguments, ready for TRL.

The user's functions are named `package.module:function` or `path/to/file.py:function`. A reward file may import modules
beside it, at import and later, without affecting anybody else's imports: its folder becomes a package with a unique
name, and `import` in one of its files looks there first. Two folders may have modules of the same name, and `random.py`
beside a reward is not what the trainer gets for `random`.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec
from importlib.machinery import SourceFileLoader as FileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from grpo_dist.config.sections import RewardFunction
from grpo_dist.errors import GrpoDistError, RewardError
from grpo_dist.masking import from_environment
from grpo_dist.rewards import REWARD_SETS, REWARDS
from grpo_dist.rewards.guard import Batch, check_rewards, own, own_columns, random_numbers_apart, reward_error
from grpo_dist.rewards.names import FROM_TRL, accepted_kwargs, check_reward_names, is_users, member_names, metric_name
from grpo_dist.text import closest

PREFIX = "grpo_dist_user_"
NEVER = frozenset({*sys.stdlib_module_names, "grpo_dist"})
"""Names that mean the same module wherever they are imported."""


def load_file(path: Path) -> ModuleType:
    """The module of a file, executed once; exceptions of its import propagate.

    In a package (folders with `__init__.py`) relative imports work as usual; only then is the package imported.
    """
    root = path.parent
    while (root / "__init__.py").is_file() and root != root.parent:
        root = root.parent
    # A dot in the stem would turn the part before it into a package.
    parts = (*path.parent.relative_to(root).parts, path.stem.replace(".", "_"))
    name = ".".join((_folder(root), *parts))
    if name not in sys.modules:
        _fallback(path.parent)
        spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _folder(folder: Path) -> str:
    """The name of a folder's package, which is created if missing."""
    name = PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
    return name


def _fallback(folder: Path) -> None:
    """For `importlib.import_module`, which does not say who imports. Last, so that it hides no other module."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


class _Finder(MetaPathFinder):
    """Finds modules in the packages of folders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(PREFIX) or path is None:
            return None
        kinds = ((ExtensionFileLoader, EXTENSION_SUFFIXES), (_Loader, SOURCE_SUFFIXES))
        specs = (FileFinder(folder, *kinds).find_spec(name) for folder in path)
        return next((spec for spec in specs if spec is not None), None)


class _Loader(FileLoader):
    """Executes a file with an `import` that looks beside it first."""

    def exec_module(self, module: ModuleType) -> None:
        folders = tuple(dict.fromkeys((Path(self.path).parent, Path(sys.modules[_top(module)].__path__[0]))))
        module.__builtins__ = {**vars(builtins), "__import__": _Import(folders)}
        super().exec_module(module)


class _Import:
    """`__import__` of a file: as Python's, except for modules in these folders."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders

    def __call__(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        folder = None if level or top in NEVER else next((one for one in self.folders if _is_there(one, top)), None)
        if folder is None:
            return builtins.__import__(name, globals, locals, fromlist, level)
        full = f"{folder_package(folder)}.{name}"
        if fromlist:
            return builtins.__import__(full, globals, locals, fromlist, 0)
        importlib.import_module(full)
        return sys.modules[f"{folder_package(folder)}.{top}"]


def folder_package(folder: Path) -> str:
    """The name under which modules of a folder are known: inside a package, the package's name."""
    inner: list[str] = []
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        inner.insert(0, folder.name)
        folder = folder.parent
    return ".".join((_folder(folder), *inner))


def _is_there(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()


def _top(module: ModuleType) -> str:
    return module.__name__.partition(".")[0]


def resolve(name: str) -> Callable:
    """The user's function that `name` refers to; a path is relative to the current directory.

    RewardError when it does not exist, its import fails, or it cannot be called the way TRL calls rewards.
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
    """Parameters of the function itself, not of a function it wraps; () for compiled code without a signature."""
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
    """RewardError for whatever user code raises on import, SystemExit included; KeyboardInterrupt and the like
    propagate."""
    if not isinstance(error, Exception | SystemExit):
        raise error
    hint = "import it in a Python of its own to see the whole traceback"
    if folder is not None and isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.rpartition(f"{folder_package(folder)}.")[2]
        hint = f"put {missing.replace('.', '/')}.py into {folder}, where the reward file is, or install it"
    raise RewardError(f"reward '{name}' cannot be imported: {type(error).__name__}: {error}", hint=hint) from error


def _attribute_hint(module: ModuleType, attribute: str) -> str:
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    close = closest(attribute, functions)
    if close:
        return f"did you mean '{close}'?"
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


FAILURES = (Exception, SystemExit, asyncio.CancelledError)
"""Exceptions of rewards that are caught; an uncaught SystemExit would end the run silently, possibly with exit code
0."""
RIGHT_ANSWERS = frozenset({"answer", "answers", "solution", "ground_truth", "target", "label", "reference"})
"""Usual names of the column with reference answers."""


@dataclass(frozen=True)
class LoadedReward:
    """A reward function with TRL's signature: `f(prompts, completions, **columns) -> list[float | None]`.

    The function gets copies, so that its changes affect neither the next function nor the stored data, and random
    numbers independent of the trainer's. Raises RewardError, with the completion at fault, when the function raises or
    does not return one finite number or None per completion.
    """

    name: str
    """The name in the configuration."""
    weight: float
    """Factor in the sum of rewards."""
    function: Callable
    kwargs: Mapping[str, Any]
    """Keyword arguments of every call; they override columns of the same name. `env:NAME` is read at the call."""
    watch: Callable[[str, Batch], AbstractContextManager[None]] = lambda _name, _batch: nullcontext()
    """Context manager around every call, given the name of the reward and its arguments."""

    @property
    def __name__(self) -> str:
        """The name TRL uses in its metrics: `rewards/<__name__>/mean`."""
        return metric_name(self.name)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the data set must have: parameters without a default that are not provided otherwise."""
        return tuple(p.name for p in self._column_parameters() if p.default is p.empty)

    @property
    def asks_for_columns(self) -> bool:
        """Whether its parameters or its code name a column of the data, as far as can be determined."""
        constants = getattr(getattr(self.function, "__code__", None), "co_consts", ())
        named = {p.name for p in self._column_parameters()} | {one for one in constants if isinstance(one, str)}
        return bool(self.columns or named & RIGHT_ANSWERS)

    def _column_parameters(self) -> list[inspect.Parameter]:
        named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        taken = {*FROM_TRL, *self.kwargs}
        return [p for p in parameters_of(self.function) if p.kind in named and p.name not in taken]

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        batch = Batch(prompts, completions, columns)
        with self._apart(batch):
            try:
                return check_rewards(self._call(batch), len(batch))
            except GrpoDistError:
                raise
            except FAILURES as error:
                raise reward_error(self.name, self.function, batch, error, self._first_failing(batch)) from error

    @contextmanager
    def _apart(self, batch: Batch):
        with random_numbers_apart(f"{self.name} {batch.step}"), self.watch(self.name, batch):
            yield

    def _call(self, batch: Batch) -> Any:
        kwargs = from_environment(dict(self.kwargs), f"reward '{self.name}'")
        arguments = {**own_columns(batch.columns), **own(kwargs)}
        return self.function(prompts=own(batch.prompts), completions=own(batch.completions), **arguments)

    def _first_failing(self, batch: Batch) -> int | None:
        """The first completion that fails on its own, None if each succeeds alone."""
        for index, single in enumerate(batch.singles()):
            try:
                check_rewards(self._call(single), 1)
            except FAILURES:
                return index
        return None


class AsyncLoadedReward(LoadedReward):
    """The same for `async def` functions, which TRL runs concurrently."""

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        batch = Batch(prompts, completions, columns)
        with self._apart(batch):
            try:
                return check_rewards(await self._call(batch), len(batch))
            except GrpoDistError:
                raise
            except FAILURES as error:
                raise reward_error(self.name, self.function, batch, error, await self._first_failing(batch)) from error

    async def _first_failing(self, batch: Batch) -> int | None:
        for index, single in enumerate(batch.singles()):
            try:
                check_rewards(await self._call(single), 1)
            except FAILURES:
                return index
        return None


__all__ = ["LoadedReward", "check_reward_names", "load_rewards"]


def load_rewards(functions: Sequence[RewardFunction]) -> list[LoadedReward]:
    """The rewards in order, each set replaced by its members.

    Every member has the weight of its set, and the keyword arguments of the set that it accepts. Imports the user's
    code. RewardError for a name, keyword argument or function that cannot be used, or one listed twice.
    """
    problems = check_reward_names(functions)
    if problems:
        ours = f"rewards: {', '.join(REWARDS)}; sets: {', '.join(REWARD_SETS)}"
        raise RewardError("\n".join(problems), hint=f"{ours}; yours: package.module:function or path/file.py:function")
    return [_load(name, function) for function in functions for name in member_names(function.name)]


def _load(name: str, configured: RewardFunction) -> LoadedReward:
    if is_users(name):
        function, kwargs = resolve(name), configured.kwargs
    else:
        function, accepted = REWARDS[name], accepted_kwargs(name)
        kwargs = {key: value for key, value in configured.kwargs.items() if key in accepted}
    from_environment(dict(kwargs), f"reward '{name}'")  # what is missing is told now, not in the first step
    # The two forms that TRL recognises: `async def`, and an object whose `__call__` is one.
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)
    kind = AsyncLoadedReward if is_async else LoadedReward
    return kind(name=name, weight=configured.weight, function=function, kwargs=kwargs)
