"""The types of answers, expressions as trees, and different types for the same solutions.

Containers hold answers of any type. An expression is a nested tuple of an operator and its operands: `("number",
Fraction)`, `("symbol", name)`, `("constant", name)`, `("add", …)`, `("multiply", …)`, `("divide", above, below)`,
`("power", base, exponent)` or `("call", function, …)`. An inequality may be written as an interval, and named
coordinates as a point.
"""

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


MINUS_ONE = ("number", Fraction(-1))


def negated(tree: Tree) -> Tree:
    return ("multiply", MINUS_ONE, tree)


def difference(left: Tree, right: Tree) -> Tree:
    return ("add", left, negated(right))


def symbols(tree: Tree) -> frozenset[str]:
    """Names of the unknowns."""
    found: set[str] = set()
    rest: list[object] = [tree]
    while rest:
        node = rest.pop()
        if node[0] == "symbol":
            found.add(node[1])
        elif node[0] not in ("number", "constant"):
            rest.extend(part for part in node[1:] if isinstance(part, tuple))
    return frozenset(found)


def is_minus_one(tree: Tree) -> bool:
    return tree in (MINUS_ONE, negated(("number", Fraction(1))))


def renamed(tree: Tree, old: str, new: str) -> Tree:
    """With another name for one of the symbols."""
    if tree[0] == "symbol":
        return ("symbol", new) if tree[1] == old else tree
    return tuple(renamed(part, old, new) if isinstance(part, tuple) else part for part in tree)


def worth(quantity: Quantity) -> Fraction:
    return quantity.value / 100 if quantity.percent else quantity.value


def tree_of(answer: Expression | Quantity) -> Tree:
    return answer.tree if isinstance(answer, Expression) else ("number", worth(answer))


_INFINITY = Expression(("symbol", "infty"))
_MINUS_INFINITY = Expression(("multiply", ("number", Fraction(-1)), ("symbol", "infty")))


def solutions(answer: Answer) -> Answer | None:
    """The set of numbers that an answer describes: `x > 3` and `(3, \\infty)`, `all real numbers` and its interval."""
    if isinstance(answer, Relation):
        return _interval(answer)
    if isinstance(answer, Listing) and answer.joined == "or":
        members = [solutions(member) for member in answer.members]
        return Gathering("union", tuple(members)) if all(isinstance(one, Sequence) for one in members) else None
    if isinstance(answer, Words) and answer.text == "all real numbers":
        return Sequence("(", ")", (_MINUS_INFINITY, _INFINITY))
    return answer if isinstance(answer, (Sequence, Gathering)) else None


def _interval(relation: Relation) -> Sequence | None:
    """The interval of an inequality in one variable that is alone on its side."""
    if not set(relation.signs) <= {"<", r"\le"}:
        return None
    sides, signs = list(relation.sides), list(relation.signs)
    if len(sides) == 2:
        if _is_variable(sides[0]):
            sides, signs = [_MINUS_INFINITY, *sides], ["<", *signs]
        else:
            sides, signs = [*sides, _INFINITY], [*signs, "<"]
    if len(sides) != 3 or not _is_variable(sides[1]) or not (_is_given(sides[0]) and _is_given(sides[2])):
        return None
    return Sequence("(" if signs[0] == "<" else "[", ")" if signs[1] == "<" else "]", (sides[0], sides[2]))


def _is_variable(side: Answer) -> bool:
    return isinstance(side, Expression) and side.tree[0] == "symbol" and side.tree[1] != "infty"


def _is_given(side: Answer) -> bool:
    return isinstance(side, Quantity) or (isinstance(side, Expression) and symbols(side.tree) <= frozenset(("infty",)))


def coordinates(listing: Listing) -> Sequence | None:
    """`x = 1, y = 2` as a point; None if the names are not in alphabetical order."""
    names = [one.name for one in listing.members if isinstance(one, Named)]
    if len(names) != len(listing.members) or names != sorted(set(names)):
        return None
    return Sequence("(", ")", tuple(one.value for one in listing.members))
