"""Whether a value is what a JSON Schema asks for: by the `jsonschema` package, or by the few rules our schema uses."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any, Literal

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
NOTES = {"$schema", "title", "description", "default", "definitions"}


def accepts(schema: dict[str, Any], value: Any) -> bool:
    if find_spec("jsonschema") is None:
        return by_hand(schema, schema, value)
    from jsonschema import Draft7Validator

    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema).is_valid(value)


def by_hand(root: dict[str, Any], schema: dict[str, Any] | Literal[True], value: Any) -> bool:
    """A keyword this does not know is an error, so that nothing passes unchecked."""
    return schema is True or all(_holds(root, schema, keyword, value) for keyword in schema if keyword not in NOTES)


def _holds(root: dict[str, Any], schema: dict[str, Any], keyword: str, value: Any) -> bool:
    stated = schema[keyword]
    match keyword:
        case "$ref":
            return by_hand(root, root["definitions"][stated.removeprefix("#/definitions/")], value)
        case "anyOf":
            return any(by_hand(root, one, value) for one in stated)
        case "allOf":
            return all(by_hand(root, one, value) for one in stated)
        case "const":
            return value == stated and type(value) is type(stated)
        case "enum":
            return any(value == one and type(value) is type(one) for one in stated)
        case "type":
            return any(_is(value, kind) for kind in ([stated] if isinstance(stated, str) else stated))
    if isinstance(value, dict):
        return _object(root, schema, keyword, value)
    if isinstance(value, list):
        return _array(root, stated, keyword, value)
    if isinstance(value, str):
        return _text(stated, keyword, value)
    return _number(stated, keyword, value) if _is(value, "number") else True


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _object(root: dict[str, Any], schema: dict[str, Any], keyword: str, value: dict[str, Any]) -> bool:
    properties = schema.get("properties", {})
    match keyword:
        case "properties":
            return all(by_hand(root, properties[key], value[key]) for key in value if key in properties)
        case "additionalProperties":
            others = [value[key] for key in value if key not in properties]
            return not others if schema[keyword] is False else all(by_hand(root, schema[keyword], o) for o in others)
        case "propertyNames":
            return all(by_hand(root, schema[keyword], key) for key in value)
        case "required":
            return all(key in value for key in schema[keyword])
    return _known(keyword)


def _array(root: dict[str, Any], stated: Any, keyword: str, value: list[Any]) -> bool:
    match keyword:
        case "items":
            return all(by_hand(root, stated, one) for one in value)
        case "minItems":
            return len(value) >= stated
    return _known(keyword)


def _text(stated: Any, keyword: str, value: str) -> bool:
    match keyword:
        case "minLength":
            return len(value) >= stated
        case "pattern":
            return re.search(stated, value) is not None
    return _known(keyword)


def _number(stated: Any, keyword: str, value: float) -> bool:
    match keyword:
        case "minimum":
            return value >= stated
        case "maximum":
            return value <= stated
        case "exclusiveMinimum":
            return value > stated
        case "exclusiveMaximum":
            return value < stated
    return _known(keyword)


def _known(keyword: str) -> bool:
    """Rules for another kind of value hold."""
    rules = {
        "properties",
        "additionalProperties",
        "propertyNames",
        "required",
        "items",
        "minItems",
        "minLength",
        "pattern",
    }
    assert keyword in rules | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}, keyword
    return True
