"""The binary format of sampled tokens: 8 bytes a token where JSON takes 79.

A stream is a sequence of frames, all little-endian: a header (completion index, number of tokens, finish), then that
many int32 token ids and float32 log-probabilities. Frames of several completions are mixed; those of one are in order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEADER = struct.Struct("<IIB3x")
RUNNING, STOP, LENGTH = 0, 1, 2
"""Values of `finish`: more follows; the completion ended by itself; the length limit cut it."""
FINISHES = {None: RUNNING, "stop": STOP, "repetition": STOP, "length": LENGTH}
"""vLLM's `finish_reason` → `finish`; any other reason is a failure."""


@dataclass(frozen=True)
class Frame:
    """The next tokens of one completion; its last frame may hold none."""

    index: int
    """Which of the n completions."""
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-probability of each token; NaN if the server does not know it."""
    finish: int


def encode(index: int, token_ids: Sequence[int], logprobs: Sequence[float], finish: int) -> bytes:
    """One frame as bytes."""
    count = len(token_ids)
    return HEADER.pack(index, count, finish) + struct.pack(f"<{count}i{count}f", *token_ids, *logprobs)


class FrameDecoder:
    """Decodes frames from pieces of any size."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes.

        Raises:
            ValueError: the bytes are not frames.
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
        """Whether no incomplete frame is left over."""
        return not self._rest
