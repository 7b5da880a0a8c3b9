"""What all tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

pytest_plugins = ["browsers", "engines", "qwen3"]

# Before torch is imported: threads that wait by spinning take the time of what runs beside the tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A loaded machine is slow, not wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

REQUIRE_ALL = os.environ.get("GRPO_DIST_REQUIRE_ALL") == "1"


@pytest.fixture(scope="session")
def missing():
    """Skip for want of a prerequisite; where nothing may be skipped (CI), fail instead."""

    def report(reason: str) -> None:
        pytest.fail(reason) if REQUIRE_ALL else pytest.skip(reason)

    return report
