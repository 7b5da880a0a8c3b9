"""Slurm's programs (sbatch, squeue, scancel, sinfo, scontrol), and its variables inside a job (`Allocation`)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from grpo_dist.errors import LaunchError, SlurmError
from grpo_dist.text import closest

TIMEOUT_SECONDS = 120.0
"""Slurm's programs themselves retry for a while if slurmctld does not answer."""

KEPT_VARIABLES = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
NO_SLURM = "log in where Slurm is (or fix PATH); without Slurm, `grpo-dist run CONFIG` trains on this machine"
NO_CONTROLLER = "slurmctld does not answer: scontrol ping; try again later"

Advice = Callable[[str], str | None]
"""Slurm's error message → what to type."""


def call(program: str, *arguments: str, stdin: str = "", advice: Advice = lambda words: None) -> tuple[str, str]:
    """Run one of Slurm's programs: (standard output, standard error).

    Raises:
        SlurmError: it is missing, does not answer, or fails; the message quotes it.
    """
    try:
        done = subprocess.run(
            [program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            env=_environment(),
        )
    except OSError as error:
        raise SlurmError(f"{program}: cannot be started here ({error.strerror})", hint=NO_SLURM) from error
    except subprocess.TimeoutExpired as error:
        what = f"{program} has not answered for {TIMEOUT_SECONDS:.0f} s"
        raise SlurmError(
            what, hint="does slurmctld run? scontrol ping; squeue --me shows whether a job was made"
        ) from error
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode} and no message"
        quoted = "\n".join(f"  | {line}" for line in words.splitlines())
        silent = "contact slurm controller" in words.lower()
        raise SlurmError(f"{program} refused:\n{quoted}", hint=NO_CONTROLLER if silent else advice(words))
    return done.stdout, done.stderr


def _environment() -> dict[str, str]:
    """This process's environment without squeue's filters and without the variables of a surrounding job.

    An interactive job exports its SLURM_* variables, SLURM_CPU_BIND and SLURM_MEM_PER_NODE among them, and sbatch would
    pass them on to the srun of the new job.
    """
    inside = "SLURM_JOB_ID" in os.environ
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SQUEUE_") and (name in KEPT_VARIABLES or not (inside and name.startswith("SLURM_")))
    }


SITE = "or in ~/.config/grpo-dist/site.yaml"
ASSOCIATIONS = "sacctmgr show associations user=$USER format=account,partition,qos"
ADVICE = {
    "account": f"set cluster.account, {SITE}; yours: {ASSOCIATIONS}",
    "qos": f"set cluster.qos, {SITE}; yours: {ASSOCIATIONS}",
    "feature": "set cluster.constraint to what the nodes have: sinfo --format='%P %f'",
    "time limit": "set cluster.time to what the partition allows: sinfo --format='%P %l'",
    "generic resource": "set cluster.gpus_per_node to what the nodes have: sinfo --format='%P %D %G'",
    "node count": "set cluster.nodes to what the partition has: sinfo --format='%P %D %G'",
    "node configuration": "fit cluster.nodes, gpus_per_node, cpus_per_gpu and constraint to the partition: "
    "sinfo --format='%P %D nodes, %c CPUs, %m MB, %G, %f'",
    "memory": "set --mem in cluster.sbatch to what the nodes have: sinfo --format='%P %m MB'",
    "unrecognized option": "fix cluster.sbatch; sbatch --help lists the options",
    "invalid option": "fix cluster.sbatch; sbatch --help lists the options",
}
"""Part of Slurm's error message → what to type; the first match counts."""


def submit(script: Path, directory: Path, options: Sequence[str] = ()) -> str:
    """Submit a script that runs in `directory`, and return the job id.

    `options` override those in the script.

    Raises:
        SlurmError: there is no sbatch, or it refuses.
    """
    answer, _ = call("sbatch", "--parsable", f"--chdir={directory}", *options, str(script), advice=advice)
    job_id = answer.strip().partition(";")[0]
    if not job_id.isdigit():
        raise SlurmError(f"sbatch answered {answer.strip()!r}, which is no job id", hint="squeue --me shows your jobs")
    return job_id


def test_only(script: str, options: Sequence[str] = ()) -> str:
    """Slurm's message on when and where a script would start; nothing is queued.

    Raises:
        SlurmError: it would never start, or there is no sbatch.
    """
    said, more = call("sbatch", "--test-only", *options, stdin=script, advice=advice)
    return (said + more).strip()


def never_starts(script: str) -> str | None:
    """Why Slurm can never start a script that it nevertheless queued, for example because it needs too many nodes.

    None if it can start, or if Slurm does not say.
    """
    try:
        test_only(script)
    except SlurmError as error:
        return str(error)
    return None


def advice(words: str) -> str | None:
    """What to type after a refusal; for a wrong partition, the nearest one that exists."""
    said = words.lower()
    if "partition" in said and "time limit" not in said:
        return _partition(words)
    return next((what for key, what in ADVICE.items() if key in said), None)


def _partition(words: str) -> str:
    try:
        there = sorted(set(call("sinfo", "--noheader", "--format=%R")[0].splitlines()) - {""})
    except SlurmError:
        there = []
    asked = words.partition("specified: ")[2].partition("\n")[0]
    near = closest(asked, there) or next(iter(there), "NAME")
    listed = f"; there is {', '.join(there)}" if there else ""
    return f"--set cluster.partition={shlex.quote(near)}, {SITE}{listed}"


FIELDS = ("JobArrayID", "State", "Reason", "TimeLeft", "NodeList", "SubmitTime", "RestartCnt", "Cluster", "WorkDir")
"""Of squeue. The working directory is the last, since it may contain any character."""

ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)
"""States of a job that is over. Slurm shows it for MinJobAge (default 300) more seconds."""


@dataclass(frozen=True)
class QueuedJob:
    """A job, or one task of an array, as squeue shows it."""

    job_id: str
    """`7`, or `7_3` for task 3 of an array."""
    state: str
    """As Slurm names it: PENDING, RUNNING, COMPLETED, …"""
    reason: str
    """Slurm's reason why it waits or why it ended; empty if there is none."""
    seconds_left: int | None
    """Until its time limit; None if it has not started or has no limit."""
    nodes: str
    """In Slurm's notation: `gpu[1-4,7]`."""
    directory: Path
    """Its working directory."""
    submitted: str = ""
    """When, ISO 8601 in UTC; when it was put back, for one that is in the queue again. Empty if Slurm does not say."""
    restarts: int = 0
    cluster: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def my_jobs() -> list[QueuedJob]:
    """All jobs of this user that are queued, running, or ended recently; the newest last.

    Raises:
        SlurmError: there is no squeue, or it does not answer.
    """
    asked = ",".join(f"{field}:|" for field in FIELDS)
    answer, _ = call("squeue", "--me", "--array", "--states=all", "--noheader", f"--Format={asked}")
    jobs = [_job(line) for line in answer.splitlines() if line.count("|") >= len(FIELDS) - 1]
    return sorted(jobs, key=lambda job: [int(number) for number in re.findall(r"\d+", job.job_id)])


def cancel(job_id: str) -> None:
    """End a job, or all tasks of an array.

    Raises:
        SlurmError: there is no scancel, or it refuses.
    """
    call("scancel", job_id)


def parse_seconds(text: str) -> int | None:
    """Seconds of Slurm's `[days-][[hours:]minutes:]seconds`; None for UNLIMITED, NOT_SET, INVALID and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, rest = (int(number or 0) for number in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def utc(text: str) -> str:
    """A time of Slurm, which is that of this machine's zone, as ISO 8601 in UTC; empty if it is none."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="seconds")
    except ValueError:
        return ""


def _job(line: str) -> QueuedJob:
    job_id, state, reason, left, nodes, submitted, restarts, cluster, directory = line.split("|", len(FIELDS) - 1)
    return QueuedJob(
        # The components of a heterogeneous job are 7+0, 7+1, …
        job_id=job_id.partition("+")[0],
        state=state,
        reason="" if reason == "None" else reason,
        seconds_left=None if state == "PENDING" else parse_seconds(left),
        nodes=nodes,
        directory=Path(directory.removesuffix("|")),
        submitted=utc(submitted),
        restarts=int(restarts) if restarts.isdigit() else 0,
        cluster=cluster,
    )


CGROUPS = Path("/sys/fs/cgroup")


def memory_of(job_id: str, root: Path = CGROUPS) -> tuple[int, int | None]:
    """(processes of the job that the kernel killed for its memory, the limit in bytes), on this node.

    From the cgroups Slurm made for the job, version 1 or 2; (0, None) where there are none.
    """
    kills, limit = 0, None
    for job in (*root.glob(f"memory/slurm*/uid_*/job_{job_id}"), *root.glob(f"system.slice/*slurmstepd*/job_{job_id}")):
        counters = [job / "memory.events"] if (job / "memory.events").exists() else job.rglob("memory.oom_control")
        for counter in counters:  # version 2 counts what is below as well
            with suppress(OSError):
                kills += sum(map(int, re.findall(r"^oom_kill (\d+)", counter.read_text(), re.MULTILINE)))
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limit = int((job / name).read_text())
    return kills, limit


SLURM_SECONDS = 60.0
KILL_WAIT_SECONDS = 30.0
"""Slurm's default of KillWait."""
SHOWN_VARIABLE = "GRPO_DIST_JOB"
"""Set in a container, where Slurm's programs are missing: the output of `scontrol show job` in the batch script."""


def out_of_reach() -> bool:
    """Whether Slurm's programs are missing here, so that only the batch script can call them."""
    return SHOWN_VARIABLE in os.environ


def show_job(job_id: str) -> dict[str, str]:
    """The fields of `scontrol show job`, of the first component of a heterogeneous job.

    `GRES` is what the first group of nodes has. Empty if Slurm does not answer.
    """
    return next(iter(show_components(job_id)), {})


def show_components(job_id: str) -> list[dict[str, str]]:
    """The fields of `scontrol show job` of each component of a heterogeneous job; of any other job there is one."""
    shown_job = os.environ[SHOWN_VARIABLE] if out_of_reach() else _show("job", job_id)
    return [parse_fields(line) for line in shown_job.splitlines() if line.strip()]


USERS_WORDS = {"JobName": "UserId", "Comment": "StdErr"}
"""Field with a text of the user's, in which anything may stand → the field after it."""


def parse_fields(line: str) -> dict[str, str]:
    """`Name=value Name=value …` of Slurm; a value may contain blanks. Of a repeated name the first counts."""
    texts = {}
    for name, after in USERS_WORDS.items():
        if found := re.search(rf"(?:^|\s){name}=(.*?)\s+(?:HetJobIdSet=\S*\s+)?{after}=", line):
            texts[name] = found[1].strip()
            line = f"{line[: found.start(1)]}{line[found.end(1) :]}"
    fields = re.findall(r"(?:^|\s)([A-Z][\w/:]*)=(.*?)(?=\s+[A-Z][\w/:]*=|\s*$)", line)
    return dict(reversed(fields)) | texts


def seconds_left(fields: Mapping[str, str]) -> float | None:
    """Seconds until Slurm ends a running job: at its time limit, or after the grace time of a preemption.

    None if it has no limit, or Slurm does not say. In a container, which lacks Slurm's zone, a grace time is not known.
    """
    limit, ran = (parse_seconds(fields.get(name, "")) for name in ("TimeLimit", "RunTime"))
    known = [] if limit is None or ran is None else [float(limit - ran)]
    if (ends := utc(fields.get("EndTime", ""))) and limit is not None and not out_of_reach():
        known.append(datetime.fromisoformat(ends).timestamp() - datetime.now(UTC).timestamp())
    return max(0.0, min(known)) if known else None


def time_left(job_id: str) -> float | None:
    """Seconds until Slurm ends the job; None if it is ending it already, sets no limit, or does not answer."""
    fields = show_job(job_id)
    return seconds_left(fields) if fields.get("JobState") == "RUNNING" else None


def kill_wait(job_id: str) -> float | None:
    """Seconds between Slurm's SIGTERM and SIGKILL, if Slurm is ending the job.

    None if the job may still run on, as in the grace time of a preemption, or if Slurm does not answer.
    """
    if show_job(job_id).get("JobState", "RUNNING") == "RUNNING":
        return None
    found = re.search(r"^KillWait\s*= (\d+) sec", _show("config"), re.MULTILINE)
    return KILL_WAIT_SECONDS if found is None else float(found[1])


def _show(*what: str) -> str:
    command = ["scontrol", "--oneliner", "show", *what, "--details"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SLURM_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


CHAIN_VARIABLE = "GRPO_DIST_CHAINED"
"""How many attempts of earlier jobs of the chain came before this job."""
RUN_VARIABLE = "GRPO_DIST_RUN"
"""In a job of a chain: the run directory it continues, for job scripts that would choose another one."""


@dataclass(frozen=True)
class Allocation:
    """The running job, and what Slurm allocated to it: the one place that reads its SLURM_* variables.

    sbatch passes on the environment it is typed in, so variables of another job may be among them.
    """

    job_id: str
    """SLURM_JOB_ID: each task of an array has its own."""
    nodes: int
    """Of all components of a heterogeneous job."""
    gpus_per_node: int
    restarts: int
    """How often Slurm has restarted this job."""
    chained: int = 0
    """How many attempts of earlier jobs of the chain came before this job."""
    cluster: str = ""
    """Slurm's name of the cluster; empty if it does not say."""
    name: str = ""
    """The job as squeue has it: `7`, or `7_3` for task 3 of an array."""
    run: str = ""
    """The run directory that a job of a chain continues."""

    @property
    def requeues(self) -> int:
        """How many attempts led to this one without a user's doing."""
        return self.chained + self.restarts

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], fields: Mapping[str, str] | None = None) -> Allocation:
        """Read SLURM_* variables.

        Args:
            fields: those of `scontrol show job`, which count where they say more.

        Raises:
            LaunchError: this is no Slurm job, or a variable is odd.
        """
        if not environ.get("SLURM_JOB_ID"):
            raise LaunchError("this is no Slurm job: SLURM_JOB_ID is not set", hint="sbatch slurm/grpo.sh CONFIG")
        return cls(
            job_id=environ["SLURM_JOB_ID"],
            nodes=_nodes(environ),
            gpus_per_node=_gpus(environ, fields or {}),
            restarts=_number(environ, "SLURM_RESTART_COUNT"),
            chained=_number(environ, CHAIN_VARIABLE),
            cluster=environ.get("SLURM_CLUSTER_NAME", ""),
            name=_array_task(environ, fields or {}),
            run=environ.get(RUN_VARIABLE, "") if environ.get(CHAIN_VARIABLE) else "",
        )


def _number(environ: Mapping[str, str], name: str, default: int = 0) -> int:
    """A count in a variable: `4`, `gpu:4`, `a100:4` or `4(x2)`.

    Raises:
        LaunchError: it is none.
    """
    text = environ.get(name, "").strip()
    if not text:
        return default
    found = re.fullmatch(r"(?:[^\s:=,()]+[:=])*(\d{1,9})(?:\(.*\))?", text)
    if found is None:
        raise LaunchError(f"{name}={text!r} in the environment is no number", hint=f"unset {name} before sbatch")
    return int(found[1])


def _array_task(environ: Mapping[str, str], fields: Mapping[str, str]) -> str:
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if fields:  # variables may be left over from another job
        array, task = fields.get("ArrayJobId"), fields.get("ArrayTaskId")
    return f"{array}_{task}" if array and task else environ["SLURM_JOB_ID"]


def _nodes(environ: Mapping[str, str]) -> int:
    components = range(_number(environ, "SLURM_HET_SIZE"))
    numbers = [f"SLURM_JOB_NUM_NODES_HET_GROUP_{index}" for index in components]
    ids = {environ.get(f"SLURM_JOB_ID_HET_GROUP_{index}") for index in components}
    # Otherwise they are left over from a heterogeneous job in which sbatch was typed.
    if numbers and all(name in environ for name in numbers) and ids & {environ["SLURM_JOB_ID"], None}:
        return sum(_number(environ, name) for name in numbers)
    return _number(environ, "SLURM_JOB_NUM_NODES", 1)


def _gpus(environ: Mapping[str, str], fields: Mapping[str, str]) -> int:
    """GPUs of the first node. Which variable Slurm sets depends on the option that requested them."""
    asked = " ".join(value for name, value in fields.items() if "TRES" in name.upper())
    if "GRES" in fields and (fields["GRES"] or "gpu" not in asked):
        return gpus_in(fields["GRES"])  # of the job itself; variables may be left over from another
    for name in ("SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE"):
        if environ.get(name):
            return _number(environ, name)
    named = environ.get("SLURM_JOB_GPUS") or environ.get("CUDA_VISIBLE_DEVICES", "")
    # `NoDevFiles` (old Slurm) and `-1` hide all GPUs.
    return len([one for one in named.split(",") if re.fullmatch(r"\d+|(GPU|MIG)-.+", one.strip())])


def gpus_in(gres: str) -> int:
    """The number of GPUs in Slurm's notation: 8 of `gpu:h100:8(S:0-1),craynetwork:4`."""
    counts = re.findall(r"(?:^|,)(?:gres[:/])?gpu(?:[:=/][^:=,()]*[A-Za-z][^:=,()]*)?(?:[:=](\d+))?(?=[,(]|$)", gres)
    return sum(int(count or 1) for count in counts)
