"""Seconds that are logged for a generation, told for a step."""

from __future__ import annotations

import pytest

from grpo_dist.report.summary import per_step, rest


@pytest.mark.parametrize(
    ("logged", "steps", "num_iterations", "expected"),
    [
        ((6.0, None, 4.0), (1, 2, 3), 1, (6.0, None, 4.0)),
        ((6.0, 4.0), (10, 20), 1, (6.0, 4.0)),
        ((6.0, None, 4.0, None), (1, 2, 3, 4), 2, (6.0, 0.0, 4.0, 0.0)),
        ((6.0, 4.0), (10, 20), 2, (3.0, 2.0)),
        ((6.0, None, 4.0), (2, 4, 6), 4, (3.0, 0.0, 2.0)),
        ((None, None), (1, 2), 2, (None, None)),
    ],
    ids=["each step", "means of ten", "every second", "every second, means of ten", "every fourth, two", "not timed"],
)
def test_a_generation_is_shared_by_the_steps_it_serves(logged, steps, num_iterations, expected) -> None:
    assert per_step(logged, steps, num_iterations) == expected


def test_the_rest_is_what_generation_and_sync_leave() -> None:
    total, generation, sync = (10.0, 10.0, None, 5.0), (6.0, None, 3.0, 4.5), (1.0, 1.0, 1.0, None)
    assert rest(total, generation, sync) == (3.0, None, None, 0.5)
