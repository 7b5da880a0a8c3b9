"""The output of `grpo-dist run --debug`: what was changed, and what it cannot test."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from grpo_dist.plan.debug import Debug


def lines(debug: Debug, width: int) -> Iterator[str]:
    """The lines to print before it starts, at most `width` wide; changes are grouped by their reason."""
    yield "scaled down to this machine:"
    for why, group in groupby(debug.changes, key=lambda change: change.why):
        changes = list(group)
        longest = max(len(change.setting) for change in changes)
        yield _wrapped(why, 2, width)
        for change in changes:
            written = f"{change.setting:<{longest}}  {_written(change.before)} → {_written(change.after)}"
            yield _wrapped(written, 4, width)
    yield "not tried here:"
    for one in debug.remains or ("nothing: this machine is all the configuration asks for",):
        yield _wrapped(one, 2, width)


def _wrapped(text: str, indent: int, width: int) -> str:
    """The text wrapped with a hanging indent; words stay whole, so that they can be copied."""
    first, further = indent * " ", (indent + 4) * " "
    return "\n".join(
        textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
        )
    )


def _written(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)
