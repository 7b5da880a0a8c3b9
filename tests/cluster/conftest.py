"""A real Slurm cluster for all tests of this directory that ask for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_jobs import GPUS, HOME, NODES, PROGRAMS, Cluster, Submit, fakes_in


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    lacking = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    reason = "a real Slurm needs root" if os.geteuid() else f"not installed: {', '.join(lacking)}" if lacking else None
    if reason and os.environ.get("GRPO_DIST_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    # Not below pytest's directory: sockets have short names.
    number = os.getpid()
    found = Cluster(Path(f"/run/grpo-dist-test-{number}"), f"10.{number % 200 + 20}.{number // 200 % 250}")
    try:
        found.control("start", NODES, GPUS)
        yield found
    finally:
        found.control("stop", check=False)
        shutil.rmtree(f"{found.directory}.last", ignore_errors=True)


@pytest.fixture
def fake(cluster, tmp_path) -> Iterator[Submit]:
    yield from fakes_in(cluster, tmp_path / HOME)


@pytest.fixture(scope="module")
def fakes(cluster, tmp_path_factory) -> Iterator[Submit]:
    yield from fakes_in(cluster, tmp_path_factory.mktemp("fakes") / HOME)
