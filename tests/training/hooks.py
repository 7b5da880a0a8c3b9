"""What we override, patch or call inside other packages: whether it still is what ours needs, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

WRITTEN_FOR = {
    "trl": "1.16",
    "vllm": "0.31",
    "transformers": "5.17",
    "accelerate": "1.15",
    "torch": "2.13",
    "deepspeed": "0.19",
    "unsloth_zoo": "2026.10",
}
"""Package → the version whose source the hooks were read in."""


@dataclass(frozen=True)
class Place:
    """A function, class, name or module of another package, and what its source must say."""

    file: str
    """Below the directory of installed packages."""
    name: str = ""
    """Dotted, within the file; empty for the whole module."""
    takes: str | None = None
    """The parameters, exactly: we stand in for it, or hand on what it was given."""
    accepts: str = ""
    """Parameters we call it with, in any order; it may have others."""
    says: Sequence[str] = ()
    """Code that must be in it, as `ast.unparse` writes it."""


@dataclass(frozen=True)
class Hook:
    """One line of the table in docs/hooks.md."""

    name: str
    ours: str
    """Files below grpo_dist, with a comma between."""
    places: Sequence[Place]

    @property
    def package(self) -> str:
        return self.places[0].file.partition("/")[0]


def faults(hook: Hook, packages: Path) -> list[str]:
    """What of a hook is not as ours needs it, each with where; nothing where all is.

    Args:
        packages: the directory the packages are installed in. Nothing is imported.
    """
    return [f"{place.file}: {fault}" for place in hook.places for fault in _faults(place, packages / place.file)]


def told(hook: Hook, found: Sequence[str]) -> str:
    """The message for who upgraded a package."""
    ours = ", ".join(f"grpo_dist/{file}" for file in hook.ours.split(", "))
    return "\n  ".join(
        [
            f"`{hook.name}` has changed in {hook.package} {_installed(hook.package)} "
            f"(ours was written for {WRITTEN_FOR[hook.package]}); {ours} relies on it:",
            *found,
            "docs/hooks.md says for what, and what breaks: read the new source, fix ours, then "
            "tests/training/hooks_*.py.",
        ]
    )


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


_parsed, _unparsed = cache(ast.parse), cache(ast.unparse)
"""Many hooks lie in the same few long files."""


def _faults(place: Place, file: Path) -> Iterator[str]:
    if not file.is_file():
        yield "there is no such file"
        return
    found = _find(_parsed(file.read_text(encoding="utf-8")), place.name)
    if found is None:
        yield f"there is no {place.name}"
        return
    if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _parameter_faults(place, parameters(found))
    text = _unparsed(found) if place.says else ""
    yield from (f"{place.name or 'it'} no longer says {code!r}" for code in place.says if code not in text)


def _parameter_faults(place: Place, found: list[str]) -> Iterator[str]:
    if place.takes is not None and place.takes != ", ".join(found):
        yield f"{place.name} takes ({', '.join(found)}), not ({place.takes}) any more"
    lost = [name for name in filter(None, place.accepts.split(", ")) if name not in found]
    if lost:
        yield f"{place.name} does not take {', '.join(lost)} any more"


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names in order, `*args` and `**kwargs` with their stars."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *([given.vararg] if given.vararg else []), *given.kwonlyargs]
    names = [f"*{one.arg}" if one is given.vararg else one.arg for one in named]
    return names + ([f"**{given.kwarg.arg}"] if given.kwarg else [])


def _find(tree: ast.AST, dotted: str) -> ast.AST | None:
    for name in filter(None, dotted.split(".")):
        tree = next((node for node in _statements(tree) if name in _names(node)), None)
        if tree is None:
            return None
    return tree


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Of a module or class, those under `if` and `try` too."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements(node)


def _names(node: ast.AST) -> set[str]:
    """What a statement gives a name to."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name for alias in node.names}
        case ast.Assign():
            return {target.id for target in node.targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()
