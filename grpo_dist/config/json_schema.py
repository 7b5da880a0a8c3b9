"""The JSON Schema of a configuration file, for completion and checks in an editor.

Draft 7, which editors' YAML plug-ins support. It accepts the loader's shorthands, but only one spelling of a value: a
number in quotes or `on` for `true` loads, but is underlined. Only the loader checks rules between settings.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from grpo_dist.config.base import as_minutes, is_section
from grpo_dist.config.grpo import GrpoSection
from grpo_dist.config.sections import RunConfig, as_function, as_functions, as_trackers
from grpo_dist.config.trl_fields import PASSED_ON

Schema = dict[str, Any]

NAME = {"type": "string", "minLength": 1}
SHORTHANDS: dict[Callable[..., Any], Callable[[Schema], list[Schema]]] = {
    as_function: lambda _function: [NAME],
    as_minutes: lambda _text: [{"type": "integer", "minimum": 1}],
    as_functions: lambda several: several["items"]["anyOf"],
    as_trackers: lambda several: [several["items"], {"const": "none"}, {"type": "null"}],
}
"""Validator that expands a shorthand → from the schema of what it expands to, those of its shorthands."""


def json_schema() -> Schema:
    """The schema as plain data; one definition per section, each setting with its documentation."""
    schema = RunConfig.model_json_schema(ref_template="#/definitions/{model}", schema_generator=_Generator)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of grpo-dist",
        "definitions": schema.pop("$defs"),
        **schema,
        "type": "object",
    }


class _Generator(GenerateJsonSchema):
    """Pydantic's schema, with the shorthands, the documentation under each field, and TRL's fields."""

    def function_before_schema(self, schema: Any) -> Schema:
        expanded = super().function_before_schema(schema)
        shorthands = SHORTHANDS.get(schema["function"]["function"])
        return {"anyOf": [expanded, *shorthands(expanded)]} if shorthands else expanded

    def model_schema(self, schema: Any) -> Schema:
        """A group of settings; left empty it means its defaults, if it has one for each setting."""
        section, found = schema["cls"], super().model_schema(schema)
        texts = documentation(section)
        fields = {name: _documented(field, texts.get(name)) for name, field in found["properties"].items()}
        found["properties"] = fields | (_passed_on() if section is GrpoSection else {})
        del found["title"]
        return found | {
            "type": "object" if found.get("required") else ["object", "null"],
            "additionalProperties": False,
        }

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False


def _documented(schema: Schema, text: str | None) -> Schema:
    """A setting with its documentation, and its default if that is a plain value."""
    if not isinstance(schema.get("default"), (bool, int, float, str)):
        schema.pop("default", None)
    if "$ref" in schema and text:
        schema = {"allOf": [schema]}  # draft 7 ignores what is beside a reference
    return schema | ({"description": text} if text else {})


def _passed_on() -> dict[str, Schema]:
    text = "TRL's `GRPOConfig` field, passed on unchanged."
    return {name: TypeAdapter(kind).json_schema() | {"description": text} for name, kind in PASSED_ON.items()}


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
