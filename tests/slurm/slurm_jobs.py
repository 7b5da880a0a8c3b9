"""A real Slurm cluster, and jobs on it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import until as waiting_until

from grpo_dist.config import load_config
from grpo_dist.plan import plan_run
from grpo_dist.render import render_files
from grpo_dist.run.directory import RunDirectory, write_atomically

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter")
NODES, GPUS = 10, 3
OVER = {"COMPLETED", "FAILED", "CANCELLED", "PREEMPTED", "TIMEOUT", "NODE_FAIL", "DEADLINE", "BOOT_FAIL"}
WAIT_SECONDS = 500
ASK_SECONDS = 1.0
"""Between two questions to Slurm: each is a process, and many wait at a time."""
AT_ONCE = 8
HOME = "it's a home"
until = partial(waiting_until, pause=0.2)
"""Less often than where no process is asked."""
PACKAGES = next(path for path in sys.path if path.endswith("site-packages"))


@dataclass
class Cluster:
    """The cluster, and its commands."""

    directory: Path
    subnet: str
    inside: tuple[str, ...] = ()
    """Words before every command, where the cluster is in a root directory of its own."""

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's programs need; none of what pytest or another job may have set."""
        kept = {name: value for name, value in os.environ.items() if not re.match("SLURM|SBATCH|GRPO_DIST_", name)}
        ours = {
            "SLURM_CLUSTER": str(self.directory),
            "SLURM_CLUSTER_SUBNET": self.subnet,
            "SLURM_CONF": str(self.directory / "slurm.conf"),
        }
        return {**kept, **ours}

    def control(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """tests/slurm/slurm_cluster."""
        return self.slurm(str(HERE / "slurm_cluster"), *arguments, check=check)

    def slurm(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        words = [*self.inside, *(str(word) for word in command)]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """tests/slurm/slurm_cluster, going on; what `exec` runs on a node is reached by its standard input alone."""
        return subprocess.Popen([str(HERE / "slurm_cluster"), *arguments], env=self.environment, stdin=subprocess.PIPE)

    def leaks(self) -> str:
        """Processes that outlived their jobs, those that run now, what lies in /dev/shm; for a moment without a job."""
        until(lambda: not self.slurm("squeue", "--noheader").stdout, WAIT_SECONDS, lambda: "jobs do not end")
        found = [self.control("leaks", check=False).stdout]
        for n in range(1, NODES + 1):
            running = self.control("exec", f"node{n}", "ps", "-eo", "stat=,args=").stdout.splitlines()
            found += [
                line for line in running if not re.match(r"Z|\S+\s+(slurmd|munged|ps|\S*sbin/(slurmd|munged)) ", line)
            ]
            found.append(self.control("exec", f"node{n}", "ls", "/dev/shm").stdout)
        return "".join(found)


@contextmanager
def started() -> Iterator[Cluster]:
    """Within, a cluster of its own."""
    # Not below pytest's directory: sockets have short names.
    number = os.getpid()
    cluster = Cluster(Path(f"/run/grpo-dist-test-{number}"), f"10.{number % 200 + 20}.{number // 200 % 250}")
    try:
        cluster.control("start", NODES, GPUS)
        yield cluster
    finally:
        cluster.control("stop", check=False)
        shutil.rmtree(f"{cluster.directory}.last", ignore_errors=True)


@dataclass
class Job:
    """A submitted job and its run directory."""

    cluster: Cluster
    number: str
    run: Path
    output: Path

    def look(self) -> dict[str, str]:
        shown = self.cluster.slurm("scontrol", "--oneliner", "show", "job", self.number).stdout
        return dict(re.findall(r"(\w+)=(\S*)", shown))

    @property
    def state(self) -> str:
        return self.look()["JobState"]

    def wait(self, state: str | None = None, seconds: float = WAIT_SECONDS) -> Job:
        """Until it is in this state, or over and gone from its nodes."""
        until(
            lambda: self._is(state),
            seconds,
            lambda: f"job {self.number} is {self.state}\n{self.text()}",
            pause=ASK_SECONDS,
        )
        return self

    def _is(self, state: str | None) -> bool:
        found = self.look()["JobState"]
        return found == state if state else found in OVER

    @property
    def code(self) -> int:
        return int(self.look()["ExitCode"].partition(":")[0])

    def text(self) -> str:
        return self.output.read_text() if self.output.exists() else "(no output)"

    def steps(self) -> list[int]:
        """The steps in metrics.jsonl as they were written."""
        path = self.run / "metrics.jsonl"
        return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []

    def successor(self) -> Job:
        """The job after this one that runs in the same directory."""
        listed = self.cluster.slurm("squeue", "--states=all", "--noheader", "--format=%i|%Z").stdout.splitlines()
        ours = [int(line.split("|")[0]) for line in listed if line.endswith(f"|{self.run}")]
        number = str(min(number for number in ours if number > int(self.number)))
        return replace(self, number=number, output=self.run / f"slurm-{number}.out")

    def wait_for_step(self, step: int, seconds: float = WAIT_SECONDS) -> None:
        until(lambda: step in self.steps(), seconds, self.text)

    @property
    def attempts(self) -> int:
        return len(list((self.run / "logs").glob("attempt-*")))

    def adapter(self) -> bytes:
        return (self.run / "adapter" / "adapter_model.safetensors").read_bytes()

    def failure(self) -> dict[str, Any]:
        return json.loads((self.run / "failure.json").read_text())


def hold(run: Path, step: int) -> None:
    """Training waits in this step, where it may have waited in another, until it is released."""
    write_atomically(run / "fault", f"0 {step} wait")


def release(run: Path) -> None:
    (run / "fault").unlink()


@dataclass
class Submit:
    """Renders runs below a directory whose name has a space and a quote, and submits them."""

    cluster: Cluster
    home: Path
    base: dict[str, Any]
    environment: dict[str, str]
    words: tuple[str, ...] = ()
    """Words before sbatch."""

    def __call__(self, name: str, *options: str, fault: str | None = None, **settings: dict[str, Any]) -> Job:
        """A job for a new run; `fault` as fake_ranks.py has it."""
        run = self.render(name, **settings)
        if fault:
            (run / "fault").write_text(fault)
        return self.again(run, *options)

    def held(self, name: str, step: int, *options: str, **settings: dict[str, Any]) -> Job:
        """A job for a new run that is held."""
        run = self.render(name, **settings)
        hold(run, step)
        return self.again(run, *options)

    def program(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """`grpo-dist` itself."""
        command = [sys.executable, "-m", "grpo_dist", *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=self.home, env=env)
        assert done.returncode == code, done.stderr
        return done

    def render(self, name: str, **settings: dict[str, Any]) -> Path:
        """As `grpo-dist render` does, which would be a process more for each of many jobs."""
        run, config = RunDirectory(self.home / name), self.home / f"{name}.yaml"
        stated = {**self.base, **{key: {**self.base.get(key, {}), **value} for key, value in settings.items()}}
        config.write_text(yaml.safe_dump(stated))
        loaded = load_config(config)
        run.create(render_files(loaded, plan_run(loaded)))
        return run.path

    def again(self, run: Path, *options: str, script: Path | None = None, arguments: tuple[str, ...] = ()) -> Job:
        """A job for a run that stands there."""
        words = [
            *self.cluster.inside,
            *self.words,
            "sbatch",
            "--parsable",
            f"--chdir={run}",
            f"--output={run}/slurm-%j.out",
            *options,
        ]
        words += [str(script or run / "job.sh"), *arguments]
        env = {**self.cluster.environment, **self.environment}
        sent = subprocess.run(words, env=env, capture_output=True, text=True, cwd=self.home, timeout=60)
        assert sent.returncode == 0, sent.stderr
        number = sent.stdout.strip()
        return Job(self.cluster, number, run, run / f"slurm-{number}.out")


def stopped(job: Job, *command: object) -> str:
    """What the command printed, which has a job save and stop; so it does in step 5, in which it is held."""
    job.wait_for_step(4)
    told = job.cluster.slurm(*command).stdout.strip()
    until((job.run / "stop-request").exists, WAIT_SECONDS, job.text)
    release(job.run)
    return told


class Together(dict[str, Callable[[Submit], None]]):
    """Scenarios, each a test, that leave one another alone: several happen at the same time.

    Not all: each job starts a dozen programs, and with thirty jobs on two cores every one takes minutes.
    """

    def __call__(self, scenario: Callable[[Submit], None]) -> Callable[[Submit], None]:
        self[scenario.__name__] = scenario
        return scenario

    @contextmanager
    def begun(self, submit: Submit, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
        """Those that are to be tested, under way."""
        stated = [getattr(item, "callspec", None) for item in request.session.items]
        names = {spec.params["name"] for spec in stated if spec is not None and "name" in spec.params}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield {name: pool.submit(scenario, submit) for name, scenario in self.items() if name in names}


PYTHON = """#!/bin/bash
# Python whose children are it again, but for the stages of a run, which the fake does; in a run directory, `late` holds
# the supervisor of its second node up, `ahead` puts its clock forward, as far as Python sees it.
if [[ "$1 $2 ${{SLURM_PROCID:-}}" == "-m grpo_dist.supervisor.node 1" ]]; then
  [ ! -e "$3/late" ] || sleep "$(<"$3/late")"
  [ ! -e "$3/ahead" ] || export CLOCK_AHEAD="$(<"$3/ahead")" PYTHONPATH={home}/clock:$PYTHONPATH
fi
case " $* " in
  *" grpo_dist report . ") ;; # the comparison of a sweep
  *" grpo_dist.training"* | *" grpo_dist serve "* | *" grpo_dist report "*)
    exec -a "$0" {python} {fake} "$@" ;;
esac
exec -a "$0" {python} "$@"
"""

CLOCK = """import os, time
time.time = lambda real=time.time: real() + float(os.environ["CLOCK_AHEAD"])
"""


def fakes_in(cluster: Cluster, home: Path) -> Iterator[Submit]:
    """Jobs with everything real but the stages themselves."""
    binaries = home / "bin"
    binaries.mkdir(parents=True)
    python = binaries / "python"
    real = Path(sys.executable).resolve()
    python.write_text(PYTHON.format(python=real, fake=HERE / "fake_training.py", home=shlex.quote(str(home))))
    python.chmod(0o755)
    (home / "clock").mkdir()
    (home / "clock" / "sitecustomize.py").write_text(CLOCK)
    base = {
        "model": {"name_or_path": "embedded", "dtype": "float32"},
        "data": {"name_or_path": "embedded", "system_prompt": "none", "chat_template": "tokenizer"},
        "grpo": {"prompts_per_step": 12, "num_generations": 2, "max_steps": 12, "save_steps": 3},
        "cluster": {"nodes": 2, "gpus_per_node": 0, "cpus_per_gpu": 1},
        "evaluation": {"enabled": False},
    }
    environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{PACKAGES}"}
    yield Submit(cluster, home, base, environment)
    for number in cluster.slurm("squeue", "--noheader", "--format=%i").stdout.split():
        cluster.slurm("scancel", number, check=False)
    until(lambda: not cluster.slurm("squeue", "--noheader").stdout, WAIT_SECONDS, lambda: "jobs do not end")
