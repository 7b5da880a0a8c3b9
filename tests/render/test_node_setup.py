"""What a node is told before anything is started there, and how a container is started: read by bash."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from grpo_dist.config.cluster import ClusterSection, ContainerSection
from grpo_dist.render.container import in_container
from grpo_dist.render.node_setup import setup_lines, with_variables

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
    script = "\n".join([*setup_lines(cluster), 'echo "$NCCL_SOCKET_IFNAME $GLOO_SOCKET_IFNAME $X"'])
    assert said_by_bash(script, tmp_path, SLURM_JOB_ID="7") == f"ib0 ib0 {tmp_path}/7\n"
    assert (tmp_path / "7").is_dir()
    assert setup_lines(ClusterSection()) == []


def words(code: str, tmp_path) -> list[str]:
    """The words bash makes of it, where `$run` has a space."""
    return said_by_bash(f"printf '%s\\n' {code}", tmp_path, run="/a run").splitlines()


def test_pyxis_takes_options_of_srun(tmp_path):
    section = ContainerSection(runtime="pyxis", image=HOSTILE, mounts=("/my data:/data",))
    found = in_container(section, ['"$run"'], gpus=True)
    assert found.command == ""
    assert words(found.srun, tmp_path) == [
        f"--container-image={HOSTILE}",
        "--container-mounts=/a run:/a run,/my data:/data",
    ]


@pytest.mark.parametrize("gpus", [True, False])
def test_apptainer_is_a_command_of_its_own(gpus, tmp_path):
    section = ContainerSection(runtime="apptainer", image="/my images/grpo.sif", mounts=("/data:/data:ro",))
    found = in_container(section, ['"$run"'], gpus=gpus)
    assert found.srun == ""
    expected = ["apptainer", "exec", *(["--nv"] if gpus else [])]
    expected += ["--bind", "/a run:/a run", "--bind", "/data:/data:ro", "/my images/grpo.sif"]
    assert shlex.split(said_by_bash(f"printf '%q ' {found.command}", tmp_path, run="/a run")) == expected


def test_without_a_container_nothing_is_said():
    assert in_container(None, ['"$run"'], gpus=True).srun == in_container(None, [], gpus=True).command == ""
