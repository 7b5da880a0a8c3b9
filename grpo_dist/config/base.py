"""What all configuration sections share: the section class, accepted values of a type, and YAML 1.2 scalars.

PyYAML reads YAML 1.1, in which `1e-6` is text, `no` a boolean, `017` fifteen and `1:30` ninety; here plain scalars
follow YAML 1.2's core schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError
from yaml.resolver import BaseResolver

NULL, BOOL, INT, FLOAT, TEXT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))

SCALARS = {
    NULL: (re.compile(r"(?:~|null|Null|NULL|)\Z"), ("~", "n", "N", "")),
    BOOL: (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), tuple("tTfF")),
    INT: (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), tuple("-+0123456789")),
    FLOAT: (
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        tuple("-+.0123456789"),
    ),
}
"""Tag → its plain spellings and the characters they start with; the first match wins, anything else is text."""

LONGEST_NUMBER = 100


class CoreResolver(BaseResolver):
    """Resolves plain scalars to the tags above."""


for _tag, (_spelling, _first) in SCALARS.items():
    CoreResolver.add_implicit_resolver(_tag, _spelling, _first)


def resolve(text: str) -> str:
    """The tag of a plain scalar."""
    return next((tag for tag, (spelling, _) in SCALARS.items() if spelling.match(text)), TEXT)


def construct(tag: str, text: str) -> Any:
    """The value of a scalar.

    Raises:
        ValueError: not a value of that tag, or a number no setting accepts; the message completes `the value …`.
    """
    if tag == TEXT:
        return text
    if not SCALARS[tag][0].match(text):
        raise ValueError("is not of the type its tag names; remove the tag")
    if tag == NULL:
        return None
    if tag == BOOL:
        return text.lower() == "true"
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"is a number of {len(text)} digits; no setting takes one that long")
    return _integer(text) if tag == INT else _finite(text)


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _finite(text: str) -> float:
    if text.lower().lstrip("+-") in (".inf", ".nan"):
        raise ValueError(f"must be an ordinary number, not {text}")
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"must be an ordinary number; {text} is too large for a computer's")
    return number


LARGEST_INTEGER = 2**31 - 1
LISTED_WORDS = 12
BOOLEAN_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

Member = tuple[Any, tuple[Any, ...]]


def members(annotation: Any, constraints: Sequence[Any] = ()) -> Iterator[Member]:
    """(type, its constraints) for each member of a union; a plain type is its own only member."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *notes = get_args(annotation)
        yield from members(inner, (*constraints, *_constraints(notes)))
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from members(member, constraints)
    else:
        yield annotation, tuple(constraints)


def accept(annotation: Any, value: Any) -> Any:
    """The value as passed to pydantic, where pydantic's lax rules are laxer than ours.

    A boolean is not a number, nor a number a boolean; yes, no, on and off are booleans where a boolean is expected; a
    number in quotes is a number where only numbers are accepted; integers fit 32 bits; an empty section means its
    defaults.

    Raises:
        PydanticCustomError: the value is refused.
    """
    kinds = [kind for kind, _ in members(annotation)]
    if value is None and len(kinds) == 1 and is_section(kinds[0]):
        return {}
    if isinstance(value, str) and bool in kinds:
        return BOOLEAN_WORDS.get(value.lower(), value)
    if isinstance(value, str) and {int, float, NoneType}.issuperset(kinds):
        value = _number(value)
    if isinstance(value, bool) and bool not in kinds and (int in kinds or float in kinds):
        raise refusal("a boolean is not a number")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and bool in kinds:
        raise refusal("a number is not a boolean")
    if int in kinds and _too_large(value):
        raise refusal(f"larger than {LARGEST_INTEGER}")
    return value


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def choices(annotation: Any) -> list[str]:
    """The words an annotation accepts: those of its literals and booleans, and null."""
    return [word for kind, _ in members(annotation) for word in _words(kind)]


def describe(annotation: Any, constraints: Sequence[Any] = ()) -> str:
    """What may be written, in plain words: `a whole number ≥ 1 or null`."""
    words = choices(annotation)
    others = [_describe(kind, notes) for kind, notes in members(annotation, constraints) if not _words(kind)]
    return " or ".join([_one_of(words), *others] if len(words) > 2 else [*others, *words])


def refusal(reason: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def _constraints(notes: Sequence[Any]) -> Iterator[Any]:
    for note in notes:
        yield from note.metadata if isinstance(note, FieldInfo) else (note,)


def _number(text: str) -> int | float:
    tag = resolve(text)
    try:
        return construct(tag if tag in (INT, FLOAT) else INT, text)
    except ValueError as wrong:
        raise refusal(str(wrong)) from wrong


def _too_large(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) > LARGEST_INTEGER


def _describe(kind: Any, constraints: Sequence[Any]) -> str:
    origin = get_origin(kind) or kind
    if is_section(origin):
        return origin.takes
    words: Mapping[Any, str] = {
        int: f"a whole number{_range(constraints)}",
        float: f"a number{_range(constraints)}",
        str: "text",
        dict: "a mapping such as {name: value}",
        list: "a list such as [a, b]",
        tuple: "a list such as [a, b]",
    }
    return words.get(origin, "a value")


def _words(kind: Any) -> list[str]:
    """The words that make up a type: a literal's, a boolean's, or null."""
    if get_origin(kind) is Literal:
        return [str(word).lower() if isinstance(word, bool) else str(word) for word in get_args(kind)]
    return {bool: ["true", "false"], NoneType: ["null"]}.get(kind, [])


def _one_of(words: Sequence[str]) -> str:
    few = words if len(words) <= LISTED_WORDS else (*words[: LISTED_WORDS - 2], "…", words[-1])
    return f"one of {', '.join(few)}"


def _range(constraints: Sequence[Any]) -> str:
    signs = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    bounds = [(*signs[type(note)], note) for note in constraints if type(note) in signs]
    return " and".join(f" {sign} {getattr(note, name)}" for sign, name, note in bounds)


Conflict = tuple[tuple[str | int, ...], str]


class Section(BaseModel):
    """A frozen group of settings; unknown keys and non-finite numbers are errors."""

    # Built on first use, as part of the whole schema: this takes a fifteenth of the time to load a configuration.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )

    takes: ClassVar[str] = "a group of settings"
    """What may be written for the section as a whole, in words."""

    def conflicts(self) -> Iterator[Conflict]:
        """Settings that are valid alone but not together: (path from here, `what is wrong; what to type`)."""
        return iter(())

    @field_validator("*", mode="before")
    @classmethod
    def _accept(cls, value: Any, info: ValidationInfo) -> Any:
        return accept(cls.model_fields[info.field_name].annotation, value)

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        found = [
            InitErrorDetails(type=PydanticCustomError("conflict", "{what}", {"what": what}), loc=path, input=None)
            for path, what in self.conflicts()
        ]
        if found:
            raise ValidationError.from_exception_data(type(self).__name__, found)
        return self


Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]


def as_minutes(value: Any) -> Any:
    """A whole number is one of minutes, as for sbatch; it is text after `--time=`, and a number in YAML."""
    return str(value) if type(value) is int and value > 0 else value


TimeLimit = Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d+){0,2}$"), BeforeValidator(as_minutes)]


def seconds_of(limit: str) -> int:
    """Slurm's `--time`: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or
    days-hours:minutes:seconds."""
    days, dash, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


EMBEDDED = "embedded"
"""The `name_or_path` of the model, and of the data set, that are included in the package."""
