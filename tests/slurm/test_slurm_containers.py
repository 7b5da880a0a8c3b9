"""Jobs in containers on a real Slurm. The programs that start containers are stand-ins which see to it that a process
sees what was mounted and nothing else: neither the host's Python, nor Slurm, nor a directory nobody named."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_jobs import HERE, PACKAGES, PYTHON, ROOT, Job, Submit, hold, stopped

from grpo_dist.run.control import read_start

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def contained(fakes, missing) -> Submit:
    """Jobs whose environment leads to no Python; the stand-ins are there."""
    if shutil.which("gcc") is None or not Path("/usr/include/slurm/spank.h").exists():
        missing("the stand-in for pyxis needs gcc and libslurm-dev")
    cluster = fakes.cluster.directory
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", cluster / "pyxis.so", HERE / "pyxis.c"], check=True)
    (cluster / "plugstack.conf").write_text(f"required {cluster}/pyxis.so {HERE}/container_root\n")
    outside = fakes.home / "outside"
    outside.mkdir()
    (outside / "python").write_text("#!/bin/sh\necho the python of the host >&2\nexit 99\n")
    (outside / "python").chmod(0o755)
    (outside / "apptainer").symlink_to(HERE / "apptainer")
    return replace(fakes, environment={"PATH": f"{outside}:/usr/bin:/bin"})


def image(home: Path, name: str) -> Path:
    """With this package and what it needs, and a Python that fakes the stages of a run."""
    found = home / name
    (found / "root").mkdir(parents=True)
    (found / "bin").mkdir()
    real = Path(sys.executable).resolve()
    python = PYTHON.format(python=real, fake=HERE / "fake_training.py", home=shlex.quote(str(home)))
    path = f"export PYTHONPATH={shlex.quote(f'{ROOT}:{PACKAGES}')}"
    (found / "bin" / "python").write_text(python.replace("\n", f"\n{path}\n", 1))
    (found / "bin" / "python").chmod(0o755)
    (found / "paths").write_text(f"{ROOT}\n{PACKAGES}\n{real.parents[1]}\n")
    return found


def container(fake: Submit, runtime: str, **settings) -> dict:
    where = image(fake.home, f"{runtime} image" if runtime == "apptainer" else runtime)
    return {"container": {"runtime": runtime, "image": str(where), **settings}}


def interrupted(fake: Submit, name: str, cluster: dict, *options: str) -> Job:
    """A job that is asked to save and stop, and is to go on by itself."""
    job = fake.held(name, 5, *options, cluster=cluster)
    stopped(job, "scancel", "--batch", "--signal=USR2", job.number)
    return job.wait()


OPTIONS = (
    "--time=77",
    "--exclude=node2",
    "--mem=900",
    "--gres=gpu:1",
    "--comment=a b=c 'd'",
    "--nice=3",
    "--no-requeue",
)


def with_a_script_of_one_s_own(fake: Submit, name: str) -> Job:
    """The same, submitted with other options than its script has, and a line of the user's."""
    run = fake.render(name)
    hold(run, 5)
    lines = (run / "job.sh").read_text().replace("\nwork=$PWD\n", '\nwork=$PWD\necho "$SLURM_JOB_ID" >>mine\n')
    (fake.home / "my own.sh").write_text(lines.replace("#SBATCH --nodes=2", "#SBATCH --nodes=2 --gpus-per-node=2"))
    job = fake.again(run, *OPTIONS, script=fake.home / "my own.sh")
    stopped(job, "scancel", "--batch", "--signal=USR2", job.number)
    return job.wait()


def test_a_run_is_saved_and_continued_with_and_without_a_container(fakes, contained):
    """One job goes back into the queue; the others may not, and chain a second one."""
    mounts = [f"{HERE}:/my tests:ro"]
    pyxis, apptainer = (container(contained, runtime, mounts=mounts) for runtime in ("pyxis", "apptainer"))
    with ThreadPoolExecutor() as pool:
        requeued = pool.submit(interrupted, contained, "a run in pyxis", pyxis)
        chained = [
            pool.submit(interrupted, contained, "a run in apptainer", apptainer, "--no-requeue"),
            pool.submit(with_a_script_of_one_s_own, fakes, "a run outside"),
        ]
        requeued, chained = requeued.result(), [job.result() for job in chained]
    assert "scontrol requeue" in (requeued.run / "logs" / "attempt-1" / "again.sh").read_text()
    assert [job.code for job in chained] == [75, 75], [job.text() for job in chained]
    followed = [job.successor().wait() for job in chained]
    for job in (requeued, *followed):
        assert (job.state, job.code, job.attempts) == ("COMPLETED", 0, 2), job.text()
        assert job.steps() == list(range(1, 13)), job.text()
    assert (job.run / "mine").read_text().split() == [chained[-1].number, job.number]
    before, after = (read_start(job.run / "logs" / f"attempt-{number}").options[0] for number in (1, 2))
    assert before == after and {"--time=01:17:00", "--mem=900M", "--gres=gpu:2,gpu:1"} <= {*after}
    assert "Submitted batch job" in chained[-1].text().splitlines()[-1]
    assert contained.cluster.leaks() == ""
