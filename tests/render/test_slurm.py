"""The Slurm script: read by bash and shellcheck, and run with stand-ins for Slurm's programs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from plans import COLOCATE, LAYOUTS, layout, planned

from grpo_dist.cluster.trackers import tracker_environment
from grpo_dist.errors import PlanError
from grpo_dist.render import render_files
from grpo_dist.render.slurm import job_script, sbatch_options
from grpo_dist.run_directory import RunDirectory

JOBS = [name for name in LAYOUTS if "rollout" not in name]
HOSTILE = 'a\'; touch owned; echo "$(touch owned)" `touch owned` #'

SRUN = """#!/usr/bin/env bash
# Runs the command once for each task, as node 0, 1, …; options end at `bash`.
tasks=1
while [ "$1" != bash ]; do case $1 in --ntasks=*) tasks=${1#*=};; esac; echo "$1" >> options; shift; done
for ((node = 0; node < tasks; node++)); do SLURM_NODEID=$node "$@" || exit $?; done
"""
SCONTROL = """#!/usr/bin/env bash
[ "$1 $2" = "show hostnames" ] && printf '%s\\n' first second third
"""
PYTHON = """#!/usr/bin/env bash
# Writes down how it was called, and leaves the result of the stage.
{ printf '%s' "$SLURM_NODEID"; printf '\\t%s' "$@"; echo; } >> calls
env -0 > environment
[ "${FAILS:-}" != "$2" ] || exit 3
case "$*" in
  *training.prepare*) touch "${@: -1}/prepared.json" ;;
  *training.compare*) touch "${@: -1}/comparison.json" ;;
  *report*) touch "${@: -1}/report.html" ;;
  *) [ -n "${NO_ADAPTER:-}" ] || mkdir -p "${@: -1}/adapter" ;;
esac
"""


@dataclass
class Job:
    """A rendered run and the directory it is submitted from."""

    run: Path
    home: Path

    def submit(self, code: int = 0, nodes: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
        slurm = {
            "SLURM_JOB_ID": "123456",
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_JOB_NODELIST": "nodes",
            "SLURM_CPUS_PER_TASK": "4",
            "SLURM_SUBMIT_DIR": str(self.home),
        }
        env = {"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}", "HOME": str(self.home), **slurm, **environment}
        done = subprocess.run(["bash", "job.sh"], cwd=self.run, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done

    def calls(self) -> list[list[str]]:
        """[node, argument, …] of every Python started."""
        return [line.split("\t") for line in (self.home / "calls").read_text().splitlines()]

    def environment(self) -> dict[str, str]:
        entries = (self.home / "environment").read_text().split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)


@pytest.fixture
def job(tmp_path):
    def render(**settings) -> Job:
        home, run = tmp_path / "home", tmp_path / "a run; it's $HERS"
        run.mkdir()
        (home / "bin").mkdir(parents=True)
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, "python": PYTHON}.items():
            (home / "bin" / name).write_text(text)
            (home / "bin" / name).chmod(0o755)
        for name, text in render_files(*planned(**settings)).items():
            (run / name).write_text(text)
        return Job(run, home)

    return render


@pytest.mark.parametrize("name", JOBS)
def test_bash_reads_every_script(name, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(job_script(*layout(name)))
    subprocess.run(["bash", "-n", script], check=True)
    late = re.search(r"^[^#\n].*^#SBATCH", script.read_text(), re.MULTILINE | re.DOTALL)
    assert late is None, "sbatch ignores options after the first command"


@pytest.mark.parametrize("name", JOBS)
def test_shellcheck_has_nothing_to_say(name, tmp_path, missing):
    if shutil.which("shellcheck") is None:
        missing("shellcheck is not installed")
    text = job_script(*layout(name))
    on_node = re.search(r"<<'NODE'[^\n]*\n(.*?)^NODE$", text, re.MULTILINE | re.DOTALL)[1]
    for file, content in {"job.sh": text, "node.sh": f"#!/usr/bin/env bash\n{on_node}"}.items():
        (tmp_path / file).write_text(content)
        checked = subprocess.run(["shellcheck", tmp_path / file], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_no_job_that_this_version_could_not_run():
    assert "job.sh" not in render_files(*layout("a rollout node"))
    assert "job.sh" not in render_files(*layout("rollout GPUs"))
    assert "job.sh" not in render_files(*layout("a node, colocate"))
    assert "job.sh" in render_files(*planned(nodes=2))


def test_only_what_is_used_is_asked_for():
    options = sbatch_options(*planned(nodes=4, rollout=COLOCATE, cluster={"account": "us", "sbatch": ["--mem=0"]}))
    assert {"--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=64", "--account=us"} <= {*options}
    assert options[-1] == "--mem=0"
    assert "--gpus-per-node=4" in sbatch_options(*layout("half a node"))
    assert not any("gpus" in option for option in sbatch_options(*layout("two processes on CPU")))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("mem=0", "is no option"),
        ("--nodes=9", "set cluster.nodes"),
        ("-N9", "set cluster.nodes"),
        ("--gpus-per-node=2", "set cluster.gpus_per_node"),
        ("--array=0-3", "share one run directory"),
        ("--comment=two\nlines", "cannot be printed"),
    ],
)
def test_options_that_contradict_the_plan_are_refused(option, told):
    config, plan = planned(cluster={"sbatch": [option]})
    with pytest.raises(PlanError) as refused:
        job_script(config, plan)
    assert told in str(refused.value)


def test_hostile_values_stay_values(job):
    cluster = {"partition": HOSTILE, "account": HOSTILE, "sbatch": [f"--comment={HOSTILE}"]}
    hostile = job(cluster=cluster, model={"name_or_path": "/" + HOSTILE}, gpus=0)
    hostile.submit()
    assert not list(hostile.run.parent.rglob("owned"))
    lines = [line.removeprefix("#SBATCH ") for line in (hostile.run / "job.sh").read_text().splitlines()]
    assert [f"--partition={HOSTILE}"] in [shlex.split(line) for line in lines if line.startswith("'--partition")]


def test_every_stage_runs_once_and_each_node_knows_its_rank(job):
    three = job(nodes=3, strategy="zero3", grpo={"prompts_per_step": 24, "num_generations": 8})
    three.submit(nodes=3)
    run = str(three.run)
    calls = three.calls()
    prepare, *train, compare, report = calls
    assert prepare == ["0", "-m", "grpo_dist.training.prepare", run]
    for node, call in enumerate(train):
        assert call == [
            *(str(node), "-m", "accelerate.commands.launch", "--machine_rank", str(node)),
            *("--config_file", f"{run}/accelerate.yaml", "--deepspeed_config_file", f"{run}/deepspeed.json"),
            *("--gpu_ids", "all", "--main_process_ip", "first", "--main_process_port", "23456"),
            *("-m", "grpo_dist.training", run),
        ]
    assert len(train) == 3
    assert compare == ["0", "-m", "grpo_dist.training.compare", run]
    assert report == ["0", "-m", "grpo_dist", "report", run]
    three.submit(nodes=3)
    assert three.calls() == calls, "a finished run was run again"


def test_a_job_that_is_submitted_again_does_what_is_left(job):
    again = job(evaluation={"enabled": False})
    again.submit(code=3, FAILS="accelerate.commands.launch")
    again.submit()
    modules = [call[2] for call in again.calls()]
    launch = "accelerate.commands.launch"
    assert modules == ["grpo_dist.training.prepare", launch, launch, "grpo_dist"]
    assert sorted(path.name for path in (again.run / "logs").iterdir()) == ["attempt-1", "attempt-2"]
    options = (again.run / "options").read_text().splitlines()
    assert f"--output={again.run}/logs/attempt-2/train.log" in options
    assert {"--export=ALL", "--kill-on-bad-exit=1", "--cpus-per-task=4"} <= set(options)


def test_a_stage_without_its_result_ends_the_job(job):
    assert "train ended without" in job().submit(code=2, NO_ADAPTER="1").stderr


def test_the_environment_is_that_of_a_run_on_this_machine(job, monkeypatch):
    tracked = job(cluster={"setup": ["export FROM_SETUP='ready now'"]})
    monkeypatch.setenv("HOME", str(tracked.home))
    tracked.submit(WANDB_PROJECT="mine")
    found = tracked.environment()
    expected = tracker_environment(["wandb"], RunDirectory(tracked.run), {"WANDB_PROJECT": "mine"})
    assert {name: found.get(name) for name in expected} == expected
    assert found["WANDB_PROJECT"] == "mine"
    assert found["FROM_SETUP"] == "ready now"
    assert found["TOKENIZERS_PARALLELISM"] == "false"


@pytest.mark.parametrize(
    ("environment", "told"),
    [({"nodes": 4}, "planned for 1 nodes, allocated 4"), ({"SLURM_JOB_ID": ""}, "submit this script with sbatch")],
)
def test_a_wrong_allocation_is_refused(job, environment, told):
    one = job()
    code = 2 if "nodes" in environment else 1
    assert told in one.submit(code=code, **environment).stderr
    assert not (one.home / "calls").exists()


def test_two_jobs_do_not_share_a_run(job):
    one = job()
    with RunDirectory(one.run).locked():
        assert "still going on" in one.submit(code=2).stderr
