"""The length limit is numpy's quantile, and never leaves a prompt without room for its completion."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_dist.data.prepare import length_limit
from grpo_dist.errors import DataError

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=60)


def kept_by(limits, lengths) -> list[int]:
    dropped = {*limits.too_long(lengths), *limits.no_room(lengths)}
    return [length for row, length in enumerate(lengths) if row not in dropped]


@given(LENGTHS, st.floats(0, 1, exclude_min=True))
def test_the_quantile_keeps_what_numpy_keeps(lengths, quantile):
    limits = length_limit(lengths, None, quantile, 10_000, 100)
    bound = numpy.quantile(lengths, quantile)
    assert kept_by(limits, lengths) == [length for length in lengths if length <= bound]


@given(LENGTHS, st.none() | st.integers(1, 3000), st.integers(2, 4000), st.integers(1, 2000))
def test_what_is_kept_fits_and_nothing_else_is_dropped(lengths, stated, room, completion):
    fits = [length for length in lengths if length + completion <= room and (stated is None or length <= stated)]
    try:
        limits = length_limit(lengths, stated, None, room, completion)
    except DataError:
        assert not fits
    else:
        assert kept_by(limits, lengths) == fits
        assert not set(limits.too_long(lengths)) & set(limits.no_room(lengths))


def test_the_recipe_in_numbers():
    """14,116 prompts of which 12,709 have at most 201 tokens: the 0.9 quantile is 201."""
    lengths = [150] * 12_000 + [201] * 709 + [202] * 1_407
    limits = length_limit(lengths, None, 0.9, 2048, 1846)
    assert limits.stated == 201
    assert len(kept_by(limits, lengths)) == 12_709


def test_all_longer_than_stated():
    with pytest.raises(DataError) as raised:
        length_limit([120, 300], 100, None, 2048, 512)
    assert str(raised.value) == (
        "data.max_prompt_length: all 2 prompts are longer than 100 tokens; the shortest has 120, the longest 300\n"
        "  → --set data.max_prompt_length=300"
    )


@pytest.mark.parametrize(
    ("room", "hint"), [(512, "--set grpo.max_completion_length=212"), (200, "=80"), (120, "model.max_length has to be")]
)
def test_no_room_for_any(room, hint):
    with pytest.raises(DataError) as raised:
        length_limit([120, 300], None, None, room, 500)
    assert f"the shortest has 120 tokens, the longest 300; the model's room of {room}" in str(raised.value)
    assert f"less grpo.max_completion_length 500 leaves {room - 500}" in str(raised.value)
    assert hint in str(raised.value)
