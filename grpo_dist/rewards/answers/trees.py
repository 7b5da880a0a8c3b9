r"""Expressions as trees: nested tuples of an operator and its operands.

A tree is `("number", Fraction)`, `("symbol", name)`, `("constant", name)`, `("add", …)`, `("multiply", …)`,
`("divide", above, below)`, `("power", base, exponent)` or `("call", function, …)`.
"""

from __future__ import annotations

from fractions import Fraction

from grpo_dist.rewards.answers.types import Expression, Quantity, Tree

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
