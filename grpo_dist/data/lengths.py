"""How long a prompt may be; pure arithmetic on token counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grpo_dist.errors import DataError


@dataclass(frozen=True)
class LengthLimit:
    """Limits in tokens, generation prompt included."""

    stated: int | None
    """From `data.max_prompt_length` or the quantile; None when neither is given."""
    room: int
    """What the model's room leaves for a prompt beside the longest completion."""

    def too_long(self, lengths: Sequence[int]) -> list[int]:
        """Indices above the stated limit."""
        return [] if self.stated is None else [index for index, length in enumerate(lengths) if length > self.stated]

    def no_room(self, lengths: Sequence[int]) -> list[int]:
        """Indices within the stated limit that leave no room for the completion."""
        stated = self.room if self.stated is None else self.stated
        return [
            index
            for index, length in enumerate(lengths)
            if length > self.room and (self.stated is None or length <= stated)
        ]


def length_limit(
    lengths: Sequence[int],
    max_prompt_length: int | None,
    quantile: float | None,
    room: int,
    max_completion_length: int,
) -> LengthLimit:
    """The limit for prompts of these lengths; it keeps at least one of them.

    `room` is what the model takes, prompt plus completion. The quantile is numpy's (linear), rounded down: lengths ≤ it
    are kept.

    Raises:
        DataError: no prompt would remain.
    """
    stated = max_prompt_length if quantile is None else _quantile(lengths, quantile)
    limit = LengthLimit(stated, room - max_completion_length)
    shortest = min(lengths)
    if stated is not None and shortest > stated:
        raise DataError(
            f"data.max_prompt_length: all {len(lengths):,} prompts are longer than {stated} tokens; "
            f"the shortest has {shortest}, the longest {max(lengths)}",
            hint=f"--set data.max_prompt_length={max(lengths)}",
        )
    if len(limit.too_long(lengths)) + len(limit.no_room(lengths)) == len(lengths):
        raise _no_room(lengths, room, max_completion_length)
    return limit


def _quantile(lengths: Sequence[int], quantile: float) -> int:
    import numpy

    return int(numpy.quantile(lengths, quantile))


def _no_room(lengths: Sequence[int], room: int, max_completion_length: int) -> DataError:
    shortest, longest = min(lengths), max(lengths)
    fits = room - longest if room > longest else room - shortest
    hint = (
        f"--set grpo.max_completion_length={fits}"
        if fits > 0
        else f"model.max_length has to be more than {shortest} tokens: raise it, or shorten the prompts"
    )
    return DataError(
        f"no prompt fits: the shortest has {shortest} tokens, the longest {longest}; the model's room of {room} "
        f"less grpo.max_completion_length {max_completion_length} leaves {room - max_completion_length}",
        hint=hint,
    )
