"""The Slurm script: read by bash and shellcheck, and run with stand-ins for Slurm's programs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from plans import COLOCATE, LAYOUTS, layout, planned
from waiting import until

from grpo_dist.errors import PlanError
from grpo_dist.render import render_files
from grpo_dist.render.slurm import any_job_script, comparison_script, job_script, sbatch_options

HOSTILE = 'a\'; touch owned; echo "$(touch owned)" `touch owned` #'

SRUN = """#!/usr/bin/env bash
# Runs the command as node 0, 1, …; its options end there.
until [ "$1" = python ] || [ "$1" = mkdir ]; do echo "$1" >> "$HOME/options"; shift; done
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do SLURM_PROCID=$node "$@" || exit; done
"""
APPTAINER = """#!/usr/bin/env bash
# Runs the command; what comes before it ends at `python`.
while [ "$1" != python ]; do echo "$1" >> "$HOME/words"; shift; done
exec "$@"
"""
SCONTROL = "#!/bin/sh\necho JobState=RUNNING\n"
PYTHON = """#!/usr/bin/env bash
# Writes down how it was called; opens an attempt, is a node, closes with CODE: each when nothing holds it up.
[ "$1" != -c ] || exit "${NO_PACKAGE:-0}"
{ printf '%s' "${SLURM_PROCID:-}"; printf '\\t%s' "$@"; echo; } >> "$HOME/calls"
case "$3" in open | close) held=$3 ;; *) held=node ;; esac
while [ -e "$HOME/hold-$held" ]; do sleep 0.02; done
case "$2 $3" in
  "grpo_dist.slurm.job open")
    env -0 > "$HOME/environment"
    [ -z "${REFUSED:-}" ] || { echo "Error: $REFUSED" >&2; exit 2; }
    mkdir -p "$HOME/a run/logs/attempt-1"
    echo "$HOME/a run"
    echo "$HOME/a run/logs/attempt-1"
    [ -z "${HIDDEN:-}" ] || rm -r "$HOME/a run" ;;
  "grpo_dist.slurm.job close")
    [ -z "${AGAIN:-}" ] || echo "$AGAIN" > "$HOME/a run/logs/attempt-1/again.sh"
    exit "${CODE:-0}" ;;
  *) [ -n "${GRPO_DIST_TOKEN:-}" ] && [ "$GRPO_DIST_HEAD" = first ] || exit 9 ;;
esac
"""
PROGRAMS = {"srun": SRUN, "apptainer": APPTAINER, "scontrol": SCONTROL, "python": PYTHON}


@dataclass
class Job:
    """A rendered run and the directory it is submitted from."""

    run: Path
    home: Path

    def start(self, *arguments: str, nodes: int = 1, **environment: str) -> subprocess.Popen[str]:
        slurm = {
            "SLURM_JOB_ID": "123456",
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_CPUS_PER_TASK": "4",
            "SLURM_SUBMIT_DIR": str(self.home),
            "SLURMD_NODENAME": "first",
        }
        env = {"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}", "HOME": str(self.home), **slurm, **environment}
        command, pipe = ["bash", "job.sh", *arguments], subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.run, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def submit(self, *arguments: str, code: int = 0, **environment: str) -> str:
        started = self.start(*arguments, **environment)
        _, told = started.communicate(timeout=60)
        assert started.returncode == code, told
        return told

    def calls(self) -> list[list[str]]:
        """[node, argument, …] of every Python started."""
        return [line.split("\t") for line in (self.home / "calls").read_text().splitlines()]

    def hold(self, part: str) -> Path:
        """Until it is removed again, `open`, `node` or `close` does not go on."""
        held = self.home / f"hold-{part}"
        held.touch()
        return held

    def await_calls(self, count: int) -> None:
        until(lambda: (self.home / "calls").exists() and len(self.calls()) >= count)

    def environment(self) -> dict[str, str]:
        entries = (self.home / "environment").read_text().split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)


@pytest.fixture
def job(tmp_path):
    def render(whose: str = "; it's $HERS", **settings) -> Job:
        home, run = tmp_path / f"home{whose}", tmp_path / f"a run{whose}"
        run.mkdir()
        (home / "bin").mkdir(parents=True)
        for name, text in PROGRAMS.items():
            (home / "bin" / name).write_text(text)
            (home / "bin" / name).chmod(0o755)
        for name, text in render_files(*planned(**settings)).items():
            (run / name).write_text(text)
        return Job(run, home)

    return render


def scripts(name: str, cluster: dict | None = None) -> list[str]:
    """What is rendered for a layout: a run's own script, one for any run, and the one that compares a sweep."""
    config, plan = planned(**LAYOUTS[name], cluster=cluster or {})
    own, any_run = job_script(config, plan), any_job_script(config, plan, "my config.yaml", "slurm/my script.sh")
    return [own, any_run, comparison_script(config)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_bash_reads_every_script(name):
    for text in scripts(name):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        late = re.search(r"^[^#\n].*^#SBATCH", text, re.MULTILINE | re.DOTALL)
        assert late is None, "sbatch ignores options after the first command"


SITE = "→ {}: modules, activate or scratch in ~/.config/grpo-dist/site.yaml, or cluster.setup"


@pytest.mark.parametrize(
    ("setup", "line"),
    [
        (["module load cuda/99"], 0),
        (["export A=1", "source /nowhere/bin/activate", "export B=2"], 1),
        (["module() { eval false; return 3; }", "module load 'a b'"], 1),
        (["export C=$HOME", "D=$(conda info)"], 1),
    ],
)
def test_a_setup_line_that_fails_ends_the_job_with_one_error(job, setup, line):
    told = job(cluster={"setup": setup}).submit(code=2)
    assert f"Error: cluster.setup: this line failed: {setup[line]}\n  {SITE.format('mend it')}" in told
    assert told.count("Error") == 1 and "Traceback" not in told


def test_setup_lines_may_fail_where_bash_does_not_mind(job, tmp_path):
    sourced = tmp_path / "activate"
    sourced.write_text("false\n[ 1 = 2 ]\nexport MINE=1\n")
    setup = [f". {shlex.quote(str(sourced))}", '[ -n "${X:-}" ] && export Y=1', "false || true", "for a in 1; do"]
    found = job(cluster={"setup": [*setup, "if [ $a = 2 ]; then false; fi", "done", "false || true"]})
    found.submit()
    assert found.environment()["MINE"] == "1"


@pytest.mark.parametrize("settings", [{}, {"container": {"runtime": "apptainer", "image": "/i"}}])
def test_without_python_or_the_package_a_job_names_the_site_s_keys(job, settings):
    found = job(cluster=settings)
    told = found.submit(code=2, NO_PACKAGE="1", REFUSED="No module named grpo_dist")
    assert "has no grpo_dist" in told and SITE.format("have it found") in told
    (found.home / "bin" / "python").unlink()
    (found.home / "bin" / "apptainer").unlink()
    told = found.submit(code=2, PATH=f"{found.home / 'bin'}:/usr/bin:/bin")
    assert "has no grpo_dist" in told and SITE.format("have it found") in told


def contained(runtime: str, image: str = HOSTILE) -> dict:
    return {"container": {"runtime": runtime, "image": image, "mounts": ["/my data:/data:ro"]}}


HOSTILE_CLUSTER = {"partition": HOSTILE, "scratch": HOSTILE, "network_interface": HOSTILE}


@pytest.mark.parametrize("cluster", [{}, HOSTILE_CLUSTER, contained("pyxis"), contained("apptainer")])
@pytest.mark.parametrize("name", ["cpu", "a rollout node"])
def test_shellcheck_has_nothing_to_say(name, cluster, missing):
    if shutil.which("shellcheck") is None:
        missing("shellcheck is not installed")
    for text in scripts(name, cluster):
        # SC2016: a `$` in single quotes, which is what becomes of a hostile value.
        command = ["shellcheck", *(["--exclude=SC2016"] if cluster else []), "-"]
        checked = subprocess.run(command, input=text, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_only_what_is_used_is_asked_for():
    options = sbatch_options(*planned(nodes=4, rollout=COLOCATE, cluster={"account": "us", "sbatch": ["--mem=0"]}))
    assert {"--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=64", "--account=us"} <= {*options}
    assert options[-1] == "--mem=0"
    assert options.count("--mem=0") == 1
    assert "--gpus-per-node=4" in sbatch_options(*layout("half a node"))
    assert not any("gpus" in option for option in sbatch_options(*layout("two processes on CPU")))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("mem=0", "is no option"),
        ("--no-requeue", "puts itself back in the queue"),
        ("--export=NONE", "no Python to run"),
        ("--output=/dev/null", "`grpo-dist logs` shows that file"),
        ("-D /data", "would mean other files"),
        ("--nodes=9", "set cluster.nodes"),
        ("-N9", "set cluster.nodes"),
        ("--gpus-per-node=2", "set cluster.gpus_per_node"),
        ("--gres=gpu:a100:4", "--gres=gpu:a100:GPUS asks for as many as are planned"),
        ("--gres=gpu:a100", "asks for 1 GPUs per node, 8 are planned"),
        ("--array=0-3", "share one run directory"),
        ("--comment=two\nlines", "cannot be printed"),
    ],
)
def test_options_that_contradict_the_plan_are_refused(option, told):
    config, plan = planned(cluster={"sbatch": [option]})
    with pytest.raises(PlanError) as refused:
        job_script(config, plan)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("option", "written", "gone"),
    [
        ("--gres=gpu:a100:8", "--gres=gpu:a100:8", "--gpus-per-node"),
        ("--gres=gpu:a100:GPUS", "--gres=gpu:a100:8", "--gpus-per-node"),
        ("--gres=lustre:1,gpu:GPUS", "--gres=lustre:1,gpu:8", "--gpus-per-node"),
        ("--gpus-per-node=h100:8", "--gpus-per-node=h100:8", None),
        ("--gres=lustre:1", "--gres=lustre:1", None),
        ("--mem-per-gpu=100G", "--mem-per-gpu=100G", "--mem=0"),
        ("--output=/logs/%x-%j.out", "--output=/logs/%x-%j.out", "--output=slurm"),
        ("--comment=GPUS", "--comment=GPUS", None),
    ],
)
def test_what_a_site_asks_for_takes_the_place_of_ours(option, written, gone):
    options = sbatch_options(*planned(cluster={"sbatch": [option]}))
    assert options.count(written) == 1
    assert not gone or not any(one.startswith(gone) for one in options)
    for once in ("--gpus-per-node", "--mem", "--output="):
        assert sum(one.startswith(once) for one in options) <= 1
    assert any("gpu" in one for one in options)


def test_hostile_values_stay_values(job):
    cluster = {"partition": HOSTILE, "account": HOSTILE, "sbatch": [f"--comment={HOSTILE}"]}
    hostile = job(cluster=cluster, model={"name_or_path": "/" + HOSTILE}, gpus=0)
    hostile.submit(HOSTILE, "--set", HOSTILE)
    assert not list(hostile.run.parent.rglob("owned"))
    assert hostile.calls()[0][3:] == ["open", HOSTILE, "--set", HOSTILE]
    lines = [line.removeprefix("#SBATCH ") for line in (hostile.run / "job.sh").read_text().splitlines()]
    assert [f"--partition={HOSTILE}"] in [shlex.split(line) for line in lines if line.startswith("'--partition")]


def test_an_attempt_is_opened_supervised_on_every_node_and_closed(job):
    three = job(nodes=3, grpo={"prompts_per_step": 24, "num_generations": 8})
    three.submit(nodes=3, code=75, CODE="75")
    run = str(three.home / "a run")
    supervisor = ["-m", "grpo_dist.supervisor.node", run, f"{run}/logs/attempt-1"]
    assert three.calls() == [
        ["", "-m", "grpo_dist.slurm.job", "open", "config.yaml", "--output", "."],
        *[[str(node), *supervisor] for node in range(3)],
        ["", "-m", "grpo_dist.slurm.job", "close", run, f"{run}/logs/attempt-1", "0"],
    ]
    options = (three.home / "options").read_text().splitlines()
    assert {"--export=ALL", "--kill-on-bad-exit=0", "--cpus-per-task=4", "--ntasks-per-node=1"} <= set(options)


def test_the_components_of_a_heterogeneous_job_are_one_step(job):
    one = job()
    one.submit(SLURM_HET_SIZE="2", SLURM_JOB_ID_HET_GROUP_0="123456", SLURM_JOB_ID_HET_GROUP_1="123457")
    assert "--het-group=0-1" in (one.home / "options").read_text().splitlines()


LEFT_OVER = {
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x3",
    "SLURM_CPU_BIND_LIST": "0x3",
    "SLURM_MEM_PER_NODE": "500",
    "SLURM_MEM_BIND_TYPE": "none",
    "SLURM_GPUS_PER_NODE": "h100:8",
    "SLURM_TRES_PER_TASK": "gres:gpu:8",
    "SLURM_NTASKS": "16",
    "SLURM_STEP_ID": "0",
    "SLURM_HET_SIZE": "2",
    "SLURM_JOB_ID_HET_GROUP_0": "77",
}


def test_variables_of_the_job_sbatch_was_typed_in_reach_no_step(job):
    one = job()
    one.submit(**LEFT_OVER)
    assert not {*LEFT_OVER} - {"SLURM_JOB_ID_HET_GROUP_0"} & {*one.environment()}
    assert not any("het-group" in option for option in (one.home / "options").read_text().splitlines())


def test_what_is_refused_is_the_last_word(job):
    one = job()
    assert one.submit(code=2, REFUSED="no such plan") == "Error: no such plan\n"
    assert len(one.calls()) == 1


SIGNALS = pytest.mark.parametrize(("signum", "why"), [(signal.SIGUSR2, "limit"), (signal.SIGTERM, "terminated")])


@SIGNALS
def test_a_signal_asks_for_a_checkpoint_and_ends_nothing(job, signum, why):
    one = job()
    held = one.hold("node")
    started = one.start()
    request = one.home / "a run" / "stop-request"
    one.await_calls(2)
    started.send_signal(signum)
    until(lambda: request.exists() and request.read_text())
    assert request.read_text() == f"{why}\n"
    assert started.poll() is None
    held.unlink()
    assert started.wait(60) == 0
    assert one.calls()[-1][-1] == "0", "srun's own code is lost"


@SIGNALS
def test_a_signal_while_an_attempt_is_opened_is_kept_until_there_is_one(job, signum, why):
    one = job()
    opening, running = one.hold("open"), one.hold("node")
    started = one.start()
    one.await_calls(1)
    os.killpg(started.pid, signum)  # Slurm's SIGTERM is for all processes of the job
    opening.unlink()
    one.await_calls(2)
    assert (one.home / "a run" / "stop-request").read_text() == f"{why}\n"
    running.unlink()
    assert started.wait(60) == 0
    assert one.calls()[-1][3] == "close"


@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_while_an_attempt_is_closed_comes_too_late(job, signum):
    one = job()
    held = one.hold("close")
    started = one.start(CODE="75")
    one.await_calls(3)
    os.killpg(started.pid, signum)
    held.unlink()
    assert started.wait(60) == 75


def test_what_makes_the_environment_ready_may_be_careless(job):
    one = job(cluster={"setup": ["export FROM_SETUP='ready now' OTHER=$UNSET_VARIABLE", "pwd > here"]})
    one.submit()
    assert one.environment()["FROM_SETUP"] == "ready now"
    assert (one.home / "here").read_text() == f"{one.home}\n"


def test_a_script_outside_a_job_says_what_it_is_for(job):
    assert "submit this script with sbatch" in job().submit(code=1, SLURM_JOB_ID="")


@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_in_a_container_everything_of_python_is_started_there(job, tmp_path, runtime):
    cluster = {**contained(runtime, "/my images/it's.img"), "scratch": f"{tmp_path}/$SLURM_JOB_ID"}
    one = job("; it's hers", cluster=cluster, rewards={"functions": ["/my rewards/mine.py:brevity"]})
    (one.home / ".cache" / "huggingface").mkdir(parents=True)
    one.submit()
    assert [call[3] for call in one.calls()] == ["open", f"{one.home}/a run", "close"]
    assert one.environment()["GRPO_DIST_JOB"] == "JobState=RUNNING"
    seen = [one.run, one.home, "/my rewards", f"{one.home}/.cache/huggingface", f"{tmp_path}/123456"]
    mounts = ",".join(["/my data:/data:ro", *(f"{path}:{path}" for path in seen)])
    words = (one.home / "options").read_text().splitlines()
    step = next(number for number, word in enumerate(words) if word.startswith("--wait"))
    if runtime == "apptainer":
        command = ["apptainer", "exec", "--nv", "--pwd", str(one.run), "--bind", mounts, "/my images/it's.img"]
        assert words[step + 2 :] == command
        assert (one.home / "words").read_text().splitlines() == 2 * command[1:]
    else:
        options = ["--container-image=/my images/it's.img", "--container-name=grpo-dist-123456"]
        options += ["--no-container-entrypoint", "--container-mounts=" + mounts.replace(" ", "\\040")]
        assert words[step + 2 :][:5] == [*options, f"--container-workdir={one.run}"]
        assert words.count("--overlap") == 2


@pytest.mark.parametrize(("runtime", "whose"), [("apptainer", "a:b"), ("apptainer", "a,b"), ("pyxis", "$HERS")])
def test_a_path_no_container_can_have_is_refused_and_nothing_started(job, runtime, whose):
    one = job(whose, cluster=contained(runtime))
    assert f"{one.run}: a path with such a character cannot be mounted" in one.submit(code=2)
    assert not (one.home / "calls").exists()
    with pytest.raises(PlanError, match="cannot mount a path with : in it"):
        job_script(*planned(cluster=contained(runtime), rewards={"functions": ["/a:b/mine.py:brevity"]}))


def test_a_run_that_nobody_outside_the_container_sees_is_refused(job):
    one = job(cluster=contained("apptainer"))
    assert "exists only in the container" in one.submit(code=2, HIDDEN="yes")


def test_what_close_wants_of_slurm_is_asked_outside(job):
    one = job(cluster=contained("apptainer"))
    one.submit(code=75, CODE="75", AGAIN='touch "$HOME/asked"')
    assert (one.home / "asked").exists()
