"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["browsers", "engines", "qwen3"]

# Before torch is imported: threads that wait by spinning take the time of what runs beside the tests, and a second
# thread takes longer to wake than it saves with models as small as ours.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A loaded machine is slow, not wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

REQUIRE_ALL = os.environ.get("GRPO_DIST_REQUIRE_ALL") == "1"


SHARED = ("cluster", "engine", "finished")
"""Fixtures of a session that take a minute."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For pytest-xdist: the tests of a file stay together, and so do the files that share what takes a minute."""
    of_file: dict[Path, str] = {}
    for item in items:
        shared = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
        of_file[item.path] = shared[0] if shared else of_file.get(item.path, item.path.stem)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(of_file[item.path]))


@pytest.fixture(scope="session")
def missing():
    """Skip for want of a prerequisite; where nothing may be skipped (CI), fail instead."""

    def report(reason: str) -> None:
        pytest.fail(reason) if REQUIRE_ALL else pytest.skip(reason)

    return report
