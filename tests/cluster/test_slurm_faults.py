"""What happens to a job on a real Slurm when something breaks. Only the stages themselves are stand-ins."""

from __future__ import annotations

from hashlib import sha256

import pytest

pytestmark = pytest.mark.heavy


def chain(steps: int) -> bytes:
    """The adapter of a fake run in which every step was done once."""
    state = ""
    for step in range(1, steps + 1):
        state = sha256(f"{state} {step}".encode()).hexdigest()
    return state.encode()


def test_a_job_ends_with_its_adapter_and_leaves_nothing(fake, cluster):
    job = fake("whole").wait()
    assert (job.state, job.code) == ("COMPLETED", 0), job.text()
    assert job.adapter() == chain(12)
    assert job.steps() == list(range(1, 13))
    assert cluster.leaks() == ""
