"""The doctor in a job on a real Slurm: what would stop the run ends the job before anything of it is started."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.heavy


def test_a_job_whose_nodes_lack_what_the_run_needs_ends_before_it_starts(fake):
    fake.base["tracking"] = ["wandb"]
    job = fake("sick", "--export=ALL,NCCL_SOCKET_IFNAME=ib7", model={"name_or_path": "nobody/nothing"}).wait()
    assert (job.state, job.code) == ("FAILED", 2), job.text()
    assert "node1, node2: interface-pin: NCCL_SOCKET_IFNAME=ib7: there is no interface ib7 that is up" in job.text()
    assert "node1, node2: model: nobody/nothing is not in the cache" in job.text()
    assert "grpo-dist prefetch CONFIG" in job.text()
    assert job.text().count("wandb-key") == 1
    assert [path.name for path in (job.run / "logs" / "attempt-1").glob("*.log")] == []
