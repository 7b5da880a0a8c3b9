from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.inference.wire_format import HEADER, LENGTH, RUNNING, STOP, Frame, FrameDecoder, encode

LOGPROBS = st.floats(-100, 0, width=32) | st.just(math.nan)
TOKENS = st.lists(st.tuples(st.integers(0, 2**31 - 1), LOGPROBS), max_size=20)
FRAMES = st.lists(st.tuples(st.integers(0, 2**32 - 1), TOKENS, st.sampled_from((RUNNING, STOP, LENGTH))), max_size=8)


def same(found: Frame, index: int, tokens: list[tuple[int, float]], finish: int) -> bool:
    pairs = zip(found.logprobs, (logprob for _, logprob in tokens), strict=True)
    return (
        (found.index, found.finish) == (index, finish)
        and found.token_ids == tuple(token for token, _ in tokens)
        and all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)
    )


@given(frames=FRAMES, data=st.data())
def test_frames_come_back_however_the_bytes_are_cut(frames, data):
    stream = b"".join(encode(index, [t for t, _ in tokens], [p for _, p in tokens], f) for index, tokens, f in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = FrameDecoder()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = [frame for piece in pieces for frame in decoder.feed(piece)]
    assert len(found) == len(frames)
    assert all(same(frame, *sent) for frame, sent in zip(found, frames, strict=True))
    assert decoder.whole


def test_the_layout_is_the_documented_one():
    assert encode(3, [7], [-0.5], STOP) == struct.pack("<IIBxxx", 3, 1, 1) + struct.pack("<if", 7, -0.5)


def test_a_part_of_a_frame_is_kept_for_later():
    stream = encode(0, [1, 2], [-1.0, -2.0], LENGTH)
    decoder = FrameDecoder()
    assert list(decoder.feed(stream[:-1])) == []
    assert not decoder.whole
    assert list(decoder.feed(stream[-1:])) == [Frame(0, (1, 2), (-1.0, -2.0), LENGTH)]


def test_bytes_that_are_no_frames_are_told():
    with pytest.raises(ValueError, match="finish 9"):
        list(FrameDecoder().feed(HEADER.pack(0, 0, 9)))
