"""Sampled tokens on the wire: 8 bytes a token instead of JSON's 79.

A stream is a row of frames, all little-endian: a header (completion index, number of tokens, finish), that many int32
token ids, that many float32 log-probabilities. Frames of several completions are mixed; those of one are in order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEADER = struct.Struct("<IIB3x")
RUNNING, STOP, LENGTH = 0, 1, 2
"""`finish`: more comes; the completion ended by itself; it was cut at the limit."""
FINISHES = {None: RUNNING, "stop": STOP, "repetition": STOP, "length": LENGTH}
"""vLLM's `finish_reason` → `finish`; any other is a failure, not an end."""


@dataclass(frozen=True)
class Frame:
    """The next tokens of one completion; the last frame of a completion may hold none."""

    index: int
    """Which of the n completions."""
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """What each token was sampled with, NaN where the server does not know; as many as tokens."""
    finish: int


def encode(index: int, token_ids: Sequence[int], logprobs: Sequence[float], finish: int) -> bytes:
    """One frame."""
    count = len(token_ids)
    return HEADER.pack(index, count, finish) + struct.pack(f"<{count}i{count}f", *token_ids, *logprobs)


class FrameDecoder:
    """Bytes in pieces of any size → frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes.

        Raises:
            ValueError: the bytes are no frames.
        """
        self._rest += data
        while len(self._rest) >= HEADER.size:
            index, count, finish = HEADER.unpack_from(self._rest)
            if finish > LENGTH:
                raise ValueError(f"a frame of completion {index} says finish {finish}")
            body = struct.Struct(f"<{count}i{count}f")
            end = HEADER.size + body.size
            if len(self._rest) < end:
                return
            values = body.unpack_from(self._rest, HEADER.size)
            del self._rest[:end]
            yield Frame(index, values[:count], values[count:], finish)

    @property
    def whole(self) -> bool:
        """No part of a frame is left over."""
        return not self._rest
