"""What the installed TRL and Transformers take, read from the packages themselves.

Run as a program it prints the fields in the form of the tables in `grpo_dist/config/trl_fields.py`.
"""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

DICT_AS_JSON_TEXT = {
    "lr_scheduler_kwargs",
    "gradient_checkpointing_kwargs",
    "generation_kwargs",
    "chat_template_kwargs",
    "transformers_continuous_batching_config",
}
"""Fields that take a dict, or a dict as JSON text for a command line; a YAML file needs the dict alone."""

NARROWED = {
    "pad_to_multiple_of": {"int", "null"},  # TRL 1.15 has no `auto`
    "logging_steps": {"int"},  # a fraction of all steps: metrics.jsonl has whole steps
    "save_steps": {"int"},
    "num_generations": {"int"},
    "max_completion_length": {"int"},
    "scale_rewards": {"str", "bool"},  # TRL turns booleans into names
}
"""Fields of which fewer or more kinds are taken than TRL annotates, on purpose."""


@cache
def fields() -> dict[str, set[str]]:
    """GRPOConfig field → the kinds of plain YAML values it takes."""
    from trl import GRPOConfig

    hints = get_type_hints(GRPOConfig)
    return {field.name: _wanted(field.name, kinds(hints[field.name])) for field in dataclasses.fields(GRPOConfig)}


def kinds(annotation: Any) -> set[str]:
    """`str | None` → {"str", "null"}; enums and literals count as the type of their values."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set().union(*map(kinds, get_args(annotation)))
    if origin is Literal:
        return {type(value).__name__ for value in get_args(annotation)}
    if annotation is NoneType:
        return {"null"}
    plain = origin or annotation
    return {"str" if issubclass(plain, Enum) else plain.__name__}


def words(annotation: Any) -> set[str]:
    """The legal words of an annotation's literals."""
    if get_origin(annotation) is Literal:
        return {word for word in get_args(annotation) if isinstance(word, str)}
    return set().union(*map(words, get_args(annotation))) if get_args(annotation) else set()


def words_in_source(module: Any, field: str) -> set[str]:
    """The words a module compares `self.field` or `args.field` with."""
    from inspect import getsource

    found = re.findall(rf"\b{field}\s+(?:==|!=|in|not in)\s+(\[[^\]]*\]|\([^)]*\)|\"[^\"]*\")", getsource(module))
    return {word for one in found for word in re.findall(r"\"(\w+)\"", one)}


def _wanted(name: str, found: set[str]) -> set[str]:
    if name in NARROWED:
        return NARROWED[name]
    return found - {"str"} if name in DICT_AS_JSON_TEXT else found


if __name__ == "__main__":
    for name, of in fields().items():
        print(f'    "{name}": {" | ".join(sorted(of))},')
