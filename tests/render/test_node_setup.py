"""What a node is told before anything is started there: read by bash."""

from __future__ import annotations

import subprocess

import pytest

from grpo_dist.config.cluster import ClusterSection
from grpo_dist.render.slurm import setup_lines, with_variables

HOSTILE = 'a\'; touch owned; echo "$(touch owned)" `touch owned` \\ #'


def said_by_bash(script: str, cwd, **environment: str) -> str:
    env = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(["bash", "-c", script], cwd=cwd, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("/local/$SLURM_JOB_ID/x", "/local/7 7/x"),
        ("${SLURM_JOB_ID}0", "7 70"),
        ("$9 $(id) ~ *", "$9 $(id) ~ *"),
        (HOSTILE, HOSTILE),
    ],
)
def test_variables_are_looked_up_and_nothing_else(text, word, tmp_path):
    assert said_by_bash(f"printf %s {with_variables(text)}", tmp_path, SLURM_JOB_ID="7 7") == word
    assert not list(tmp_path.iterdir())


def test_the_site_comes_before_the_runs_own_lines(tmp_path):
    cluster = ClusterSection(network_interface="ib0", scratch=f"{tmp_path}/$SLURM_JOB_ID", setup=("export X=$TMPDIR",))
    srun = 'srun() { while [[ $1 == --* ]]; do shift; done; "$@"; }'
    script = "\n".join([srun, *setup_lines(cluster), 'echo "$NCCL_SOCKET_IFNAME $GLOO_SOCKET_IFNAME $X"'])
    assert said_by_bash(script, tmp_path, SLURM_JOB_ID="7") == f"ib0 ib0 {tmp_path}/7\n"
    assert (tmp_path / "7").is_dir()
    assert setup_lines(ClusterSection()) == []
