"""The JSON Schema of a configuration file, for completion and checks in an editor.

Draft 7, which editors' YAML plug-ins support. It accepts the loader's shorthands, but only one spelling of a value: a
number in quotes or `on` for `true` loads, but is underlined. Only the loader checks rules between settings.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from grpo_dist.config.base import Name, Positive, is_section, members
from grpo_dist.config.cluster import as_minutes
from grpo_dist.config.grpo import GrpoSection
from grpo_dist.config.sections import FunctionOrName, RunConfig, Tracker, as_function, as_functions, as_trackers
from grpo_dist.config.trl_fields import PASSED_ON

Schema = dict[str, Any]

SHORTHANDS: dict[Any, Any] = {
    as_function: Name,
    as_minutes: Positive,
    as_functions: FunctionOrName,
    as_trackers: Tracker | Literal["none"] | None,
}
"""Validator that expands a shorthand → the annotation of the shorthand."""

BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}


def json_schema() -> Schema:
    """The schema as plain data; one definition per section, each setting with its documentation."""
    sections = dict.fromkeys(_sections(RunConfig))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of grpo-dist",
        "definitions": {section.__name__: _section(section) for section in sections if section is not RunConfig},
        **_section(RunConfig),
        "type": "object",
    }


def _sections(section: Any) -> Iterator[Any]:
    """A section and all those below it."""
    yield section
    for field in section.model_fields.values():
        for kind in _named(field.annotation):
            yield from _sections(kind)


def _named(annotation: Any) -> Iterator[Any]:
    """The section classes in an annotation."""
    for kind, _ in members(annotation):
        if is_section(kind):
            yield kind
        else:
            for inner in get_args(kind):
                yield from _named(inner) if get_origin(kind) in (tuple, list) else ()


def _section(section: Any) -> Schema:
    """A group of settings; left empty it means its defaults, if it has one for each setting."""
    required = [name for name, field in section.model_fields.items() if field.is_required()]
    return {
        "description": inspect.cleandoc(section.__doc__),
        "type": "object" if required else ["object", "null"],
        "properties": {**_fields(section), **(_passed_on() if section is GrpoSection else {})},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _fields(section: Any) -> dict[str, Schema]:
    texts = documentation(section)
    return {name: _field(field, texts.get(name)) for name, field in section.model_fields.items()}


def _field(field: FieldInfo, text: str | None) -> Schema:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return _documented(_value(field.annotation, field.metadata), text, default)


def _passed_on() -> dict[str, Schema]:
    return {
        name: _documented(_value(kind), "TRL's `GRPOConfig` field, passed on unchanged.")
        for name, kind in PASSED_ON.items()
    }


def _documented(schema: Schema, text: str | None, default: Any = None) -> Schema:
    """A setting with its documentation, and its default if that is a plain value."""
    if "$ref" in schema and text:
        schema = {"allOf": [schema]}  # draft 7 ignores whatever is beside a reference
    plain = to_jsonable_python(default)
    return {
        **schema,
        **({"description": text} if text else {}),
        **({"default": plain} if isinstance(plain, (bool, int, float, str)) else {}),
    }


def _value(annotation: Any, notes: Sequence[Any] = ()) -> Schema:
    """The schema of a setting with that annotation."""
    choices = [choice for kind, constraints in members(annotation, notes) for choice in _choices(kind, constraints)]
    unique = [choice for i, choice in enumerate(choices) if choice not in choices[:i]]
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def _choices(kind: Any, notes: Sequence[Any]) -> Iterator[Schema]:
    """A member of a union, and the shorthands for it."""
    yield _member(kind, notes)
    for note in notes:
        if shorthand := SHORTHANDS.get(getattr(note, "func", None)):
            for of, constraints in members(shorthand):
                yield from _choices(of, constraints)


def _member(kind: Any, notes: Sequence[Any]) -> Schema:
    if is_section(kind):
        return {"$ref": f"#/definitions/{kind.__name__}"}
    origin = get_origin(kind) or kind
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    if origin in (tuple, list):
        return {"type": "array", "items": _value(get_args(kind)[0]), **_limits(notes, "minItems")}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(get_args(kind)[1])}
    if kind in (int, float, str):
        return {"type": TYPES[kind], **_limits(notes, "minLength")}
    return {"type": TYPES[kind]} if kind in TYPES else {}


def _limits(notes: Sequence[Any], length: str) -> Mapping[str, Any]:
    """Bounds, pattern and least length among the constraints of a member."""
    names = {**BOUNDS, "min_length": length, "pattern": "pattern"}
    return {names[key]: value for note in notes for key in names if (value := getattr(note, key, None)) is not None}


def documentation(section: Any) -> dict[str, str]:
    """Setting → its docstring, for the section and its base classes."""
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if is_section(base):
            found |= _field_texts(base.__module__).get(base.__name__, {})
    return found


@cache
def _field_texts(module: str) -> dict[str, dict[str, str]]:
    """Class → field → the docstring under the field in the module's source.

    Pydantic's `use_attribute_docstrings` does the same, but on every import of the module.
    """
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_texts_under_fields(node.body)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _texts_under_fields(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, text in pairwise(body):
        match statement, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as documentation)):
                yield name, inspect.cleandoc(documentation)
