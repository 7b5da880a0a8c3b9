"""A debug run for a person at a terminal: what was changed, and what nothing here tries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from grpo_dist.plan.debug import Debug


def lines(debug: Debug) -> Iterator[str]:
    """What to say before it starts."""
    yield "scaled down to this machine:"
    width = max((len(change.setting) for change in debug.changes), default=0)
    for change in debug.changes:
        yield f"  {change.setting:<{width}}  {_written(change.before)} → {_written(change.after)}  ({change.why})"
    yield "not tried here:"
    yield from (f"  {one}" for one in debug.remains or ("nothing: this machine is all the configuration asks for",))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
