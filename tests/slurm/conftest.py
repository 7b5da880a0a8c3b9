"""A real Slurm cluster for all tests of this directory that ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from slurm_jobs import HOME, PROGRAMS, Cluster, Submit, fakes_in, started


@pytest.fixture(scope="session")
def cluster(missing) -> Iterator[Cluster]:
    lacking = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if os.geteuid():
        missing("a Slurm cluster on one machine needs root")
    if lacking:
        missing(f"a Slurm cluster needs {', '.join(lacking)} (slurmctld, slurmd, slurm-client, munge, iproute2)")
    if subprocess.run(["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "true"]).returncode:
        missing("a Slurm cluster on one machine needs namespaces, which are not allowed here")
    with started() as found:
        yield found


@pytest.fixture
def fake(cluster, tmp_path) -> Iterator[Submit]:
    yield from fakes_in(cluster, tmp_path / HOME)
    assert cluster.leaks() == ""


@pytest.fixture(scope="module")
def fakes(cluster, tmp_path_factory) -> Iterator[Submit]:
    yield from fakes_in(cluster, tmp_path_factory.mktemp("fakes") / HOME)
