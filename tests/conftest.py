"""What all tests share."""

from __future__ import annotations

import os
from collections import Counter
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

HERE = Path(__file__).parent
REQUIRE_ALL = os.environ.get("GRPO_DIST_REQUIRE_ALL") == "1"


SHARED = ("engine", "cluster", "finished")
"""Fixtures of a session that take a minute; of the groups that share one, the longest comes first."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For pytest-xdist: the tests of a file stay together, and so do the files that share what takes a minute.

    The groups with most to do come first, so that no core is idle while the last one ends.
    """
    of_file: dict[Path, str] = {}
    for item in items:
        shared = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
        of_file[item.path] = shared[0] if shared else of_file.get(item.path, str(item.path.relative_to(HERE)))
    heavy = Counter(of_file[item.path] for item in items if item.get_closest_marker("heavy"))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(of_file[item.path]))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _place(of_file[item.path], heavy))


def _place(group: str, heavy: Counter[str]) -> tuple[int, int]:
    return SHARED.index(group) if group in SHARED else len(SHARED), -heavy[group]


@pytest.fixture(scope="session")
def missing():
    """Skip for want of a prerequisite; where nothing may be skipped (CI), fail instead."""

    def report(reason: str) -> None:
        pytest.fail(reason) if REQUIRE_ALL else pytest.skip(reason)

    return report
