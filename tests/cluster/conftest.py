"""A real Slurm cluster for all tests of this directory that ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_jobs import GPUS, HOME, NODES, PROGRAMS, Cluster, Submit, fakes_in


@pytest.fixture(scope="session")
def cluster(missing) -> Iterator[Cluster]:
    lacking = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if os.geteuid():
        missing("a Slurm cluster on one machine needs root")
    if lacking:
        missing(f"a Slurm cluster needs {', '.join(lacking)} (slurmctld, slurmd, slurm-client, munge, iproute2)")
    if subprocess.run(["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "true"]).returncode:
        missing("a Slurm cluster on one machine needs namespaces, which are not allowed here")
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
