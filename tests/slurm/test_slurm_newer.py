"""Jobs on Slurm 24.11, as Debian trixie has it, in a root directory of its own. Only the stages are stand-ins."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from slurm_jobs import HERE, HOME, ROOT, WAIT_SECONDS, Cluster, Submit, fakes_in, hold, stopped, until

from grpo_dist.run.control import read_start

pytestmark = pytest.mark.heavy

SUITE, RELEASE = "trixie", "slurm-wlm 24.11"
NOBODY = 65534


@pytest.fixture(scope="module")
def newer(missing) -> Iterator[Submit]:
    """A cluster of two nodes of three GPUs, and jobs on it; all below a directory that every user may enter."""
    if os.geteuid() or shutil.which("dpkg-deb") is None or shutil.which("munged", path="/usr/sbin") is None:
        missing("a Slurm of another release needs root, Debian and the programs of tests/slurm/slurm_cluster")
    with TemporaryDirectory(prefix="newer-") as directory:
        os.chmod(directory, 0o755)
        tool, slurm = str(HERE / "slurm_root"), f"{directory}/slurm"
        if subprocess.run([tool, "fetch", slurm, SUITE], stderr=subprocess.DEVNULL).returncode:
            missing(f"the packages of Debian {SUITE} cannot be fetched")
        bound = {str(ROOT), os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}
        subprocess.run([tool, "start", slurm, *sorted(bound)], check=True)
        number = os.getpid()
        where = Path(f"/run/grpo-dist-newer-{number}"), f"10.{number % 200 + 20}.{number // 200 % 250}"
        cluster = Cluster(*where, (tool, "enter", slurm))
        try:
            cluster.control("start", 2, 3)
            yield from fakes_in(cluster, Path(directory) / HOME)
        finally:
            cluster.control("stop", check=False)
            subprocess.run([tool, "stop", slurm], check=True)


def test_on_a_newer_slurm_a_job_is_chained_with_its_options(newer):
    """Leftovers of an outer job, which would shape the step, and CPUs per task, which srun takes from the job."""
    assert newer.cluster.slurm("slurmctld", "-V").stdout.startswith(RELEASE)
    run = newer.render("chained", cluster={"cpus_per_gpu": 3})
    hold(run, 5)
    outer = {"SLURM_TRES_PER_TASK": "cpu=60", "SLURM_CPUS_PER_TASK": "60", "SLURM_MEM_PER_NODE": "7"}
    submit = replace(newer, environment={**newer.environment, **outer})
    options = ("--time=77", "--gres=gpu:1", "--comment=a b=c 'd'", "--mem=900", "--no-requeue")
    job = submit.again(run, *options)
    stopped(job, "scancel", "--batch", "--signal=USR2", job.number)
    assert job.wait().code == 75, job.text()
    after = job.successor().wait()
    assert (after.state, after.code, after.attempts) == ("COMPLETED", 0, 2), after.text()
    assert after.steps() == list(range(1, 13)), after.text()
    first, second = (read_start(run / "logs" / f"attempt-{number}").options for number in (1, 2))
    assert first == second and {"--gres=gpu:1", "--cpus-per-task=3", "--mem=900M", "--time=01:17:00"} <= {*first[0]}
    assert "warning: the job has 1 GPUs per node" in job.text()


def test_on_a_newer_slurm_a_user_without_an_environment_is_requeued(newer):
    """Not root, with --export=NONE: what the job needs comes from cluster.setup."""
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in newer.environment.items())
    run = newer.render("plain user", cluster={"setup": [f"export {variables}"]})
    for path in (newer.home, run, *run.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    hold(run, 5)
    os.chown(run / "fault", NOBODY, NOBODY)
    words = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    job = replace(newer, words=words).again(run, "--export=NONE")
    stopped(job, "scontrol", "requeue", job.number)
    job.wait()
    assert (job.state, job.code, job.attempts) == ("COMPLETED", 0, 2), job.text()
    assert job.steps() == list(range(1, 13)), job.text()
    assert json.loads((run / "job.json").read_text())["job_id"] == job.number
    until(lambda: not newer.cluster.slurm("squeue", "--noheader").stdout, WAIT_SECONDS, job.text)
    assert newer.cluster.control("leaks", check=False).stdout == ""
