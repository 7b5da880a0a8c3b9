"""The types of answers. Containers hold answers of any type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

Tree = tuple
"""An expression: `("number", Fraction)`, `("symbol", name)`, or an operator and its operands (`expression`)."""


@dataclass(frozen=True)
class Quantity:
    """A number written out; `value` as written (50 for `50%`), the canonical name of its unit or "" for none."""

    value: Fraction
    unit: str = ""
    percent: bool = False
    decimals: int = field(default=0, compare=False)
    """Digits after the point of a decimal fraction; 0 for other notations."""
    divided: bool = field(default=False, compare=False)
    """A fraction that is a division left to do: its value is whole, or it is one of decimals."""


@dataclass(frozen=True)
class Expression:
    """Anything with a value, perhaps depending on variables; `tree` is the parsed expression."""

    tree: Tree
    unit: str = ""


@dataclass(frozen=True)
class Words:
    """Text without mathematics, in lower case; a single letter keeps its case."""

    text: str


@dataclass(frozen=True)
class Choice:
    """A letter of a multiple-choice question, perhaps with the text beside it."""

    letter: str
    beside: Answer | None = None


@dataclass(frozen=True)
class Named:
    """`x = 3`, `f(x) = 2x`, `x \\in …`: a value and its name."""

    name: str
    value: Answer
    relation: Relation | None = None
    """The same as an equation, where both sides can be computed."""


@dataclass(frozen=True)
class Listing:
    """Several answers in any order; `ordered` for a sequence with dots."""

    members: tuple[Answer, ...]
    ordered: bool = False
    joined: str = ","
    """What joins them: `and`, `or`, or a comma."""


@dataclass(frozen=True)
class Sequence:
    """`(1, 2)`, `[0, 1)`, `\\langle 1, 2 \\rangle`: a point, vector or interval. Order and brackets count."""

    opening: str
    closing: str
    members: tuple[Answer, ...]


@dataclass(frozen=True)
class Gathering:
    """A set, or a union of intervals: order and repetition do not matter."""

    kind: str
    members: tuple[Answer, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of answers; a determinant is no matrix."""

    rows: tuple[tuple[Answer, ...], ...]
    determinant: bool = False


@dataclass(frozen=True)
class Relation:
    """`a < b \\le c` or an equation: expressions with signs between them, the smaller one first."""

    signs: tuple[str, ...]
    sides: tuple[Answer, ...]


@dataclass(frozen=True)
class Ratio:
    """`1 : 2`, `3 to 1`; `clock` where it may be a time of day as well."""

    parts: tuple[Answer, ...]
    clock: bool = False


@dataclass(frozen=True)
class Clock:
    """A time of day; `half` is am, pm or ""."""

    hour: int
    minute: int
    second: int
    half: str = ""


@dataclass(frozen=True)
class Date:
    """A day; `year` None and `weekday` "" where they are not given."""

    year: int | None
    month: int
    day: int
    weekday: str = ""


@dataclass(frozen=True)
class InBase:
    """Digits and their base, as in `1011_2`."""

    digits: str
    base: int


@dataclass(frozen=True)
class Opaque:
    """Anything else: equal only to the same text."""

    text: str


Answer = (
    Quantity | Expression | Words | Choice | Named | Listing | Sequence | Gathering | Matrix | Relation | Ratio
    | Clock | Date | InBase | Opaque
)  # fmt: skip
Bindings = Mapping[str, Fraction]


class Unreadable(ValueError):
    """The text is not of the attempted type."""
