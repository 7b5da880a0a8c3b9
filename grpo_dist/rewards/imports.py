"""Lets reward files import modules beside them, at import and later, without affecting anybody else's imports.

A folder becomes a package with a unique name, and `import` in one of its files looks there first: two folders may have
modules of the same name, and `random.py` beside a reward is not what the trainer gets for `random`.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec
from importlib.machinery import SourceFileLoader as FileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

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
