"""Numbers of two kinds: exact fractions while they are small, else mpmath's, to `DIGITS` digits."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from grpo_dist.errors import RewardError

if TYPE_CHECKING:
    from mpmath.ctx_mp import MPContext

DIGITS = 60
MAX_BITS = 20_000
"""Most bits of an exact number; larger ones are computed to `DIGITS` digits."""


class Undefined(ArithmeticError):
    """The expression has no value at this point."""


class _Local(threading.local):
    """A context of mpmath for each thread: its functions change the precision while they work."""

    context: MPContext | None = None


_local = _Local()


def mp_context() -> MPContext:
    if _local.context is None:
        try:
            from mpmath.ctx_mp import MPContext
        except ImportError as error:
            raise RewardError(
                f"comparing these answers needs mpmath, which cannot be imported: {error}",
                hint="pip install 'grpo-dist[train]'",
            ) from error
        _local.context = MPContext()
        _local.context.dps = DIGITS
    return _local.context


os.register_at_fork(after_in_child=lambda: setattr(_local, "context", None))


def inexact(value: Any) -> Any:
    mp = mp_context()
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def is_real(value: Any) -> bool:
    return isinstance(value, Fraction) or not mp_context().im(value)


def divided(above: Any, below: Any) -> Any:
    if isinstance(above, Fraction) and isinstance(below, Fraction):
        return above / below
    return inexact(above) / inexact(below)


def bounded(value: Any) -> Any:
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        return inexact(value)
    return value
