"""Asking Slurm to run a job again: requeue it or, where the cluster forbids that, submit a new job that follows it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from grpo_dist.config import RunConfig
from grpo_dist.render.slurm import AGAIN_FILE
from grpo_dist.run.control import (
    FAILED,
    TRY_AGAIN,
    Why,
    fruitless_attempts,
    read_outcome,
    read_start,
    stop_requested,
)
from grpo_dist.run.directory import JOB_FILE, RunDirectory, write_atomically, write_json
from grpo_dist.slurm.client import (
    CHAIN_VARIABLE,
    RUN_VARIABLE,
    SLURM_SECONDS,
    Allocation,
    out_of_reach,
    show_components,
    show_job,
)
from grpo_dist.slurm.status import write_job

MOST_FRUITLESS = 3
"""After this many attempts in a row that left no newer checkpoint, the run is over."""

OPTIONS = {
    "JobName": "job-name",
    "Partition": "partition",
    "Account": "account",
    "QOS": "qos",
    "Reservation": "reservation",
    "TimeLimit": "time",
    "TimeMin": "time-min",
    "Deadline": "deadline",
    "NumNodes": "nodes",
    "ReqNodeList": "nodelist",
    "ExcNodeList": "exclude",
    "Features": "constraint",
    "Switches": "switches",
    "CPUs/Task": "cpus-per-task",
    "CoreSpec": "core-spec",
    "MinMemoryNode": "mem",
    "MinMemoryCPU": "mem-per-cpu",
    "MinTmpDiskNode": "tmp",
    "Licenses": "licenses",
    "Network": "network",
    "Nice": "nice",
    "MailUser": "mail-user",
    "MailType": "mail-type",
    "Comment": "comment",
}
"""Field of `scontrol show job` → the option of sbatch that asks for it."""
OF_GPUS = {
    "TresPerNode": "gres",
    "TresPerJob": "gpus",
    "TresPerSocket": "gpus-per-socket",
    "TresPerTask": "gpus-per-task",
    "CpusPerTres": "cpus-per-gpu",
    "MemPerTres": "mem-per-gpu",
}
"""The same where GPUs are counted."""
SHARING = {"NO": ["--exclusive"], "USER": ["--exclusive=user"], "MCS": ["--exclusive=mcs"], "YES": ["--oversubscribe"]}
"""What `OverSubscribe` says → the option."""
UNASKED = ("", "(null)", "N/A", "None", "NONE", "*", "Unknown", "Partition_Limit")
NOTHING_IF_0 = ("MinTmpDiskNode", "Nice", "CoreSpec")
IN_SCRIPT = re.compile(
    r"\s(?:--(?:gpus[a-z-]*|gres|mem|mem-per-[a-z]+|cpus-per-gpu|array|begin|dependency)(?:=|\s+)\S+|"
    r"-[Gabd]\s*\S+|(?:--wait|-W)(?=\s|$))"
)
"""In a script, options that would be added to the same ones of the command line, or are not for the next job."""
SUBMITTED = "submitted.sh"
"""In the log directory of an attempt: the script of its job, as Slurm has it."""
NEXT = "next.sh"
"""Beside it: the same for the next job."""


def options_of(fields: Mapping[str, str]) -> list[str]:
    """The options with which sbatch asks for a job like this one, whatever stated them.

    Args:
        fields: those of `scontrol show job` while the job runs; once it ends, Slurm leaves some out.
    """
    asked = {name: value for name, value in fields.items() if value not in UNASKED}
    by_gpu = {"MinMemoryNode", "MinMemoryCPU"} if "MemPerTres" in asked else set()
    by_gpu |= {"CPUs/Task"} if "CpusPerTres" in asked else set()
    for name in {name for name in NOTHING_IF_0 if re.match(r"-|0\D?$", asked.get(name, ""))} | by_gpu:
        asked.pop(name, None)
    options = [f"--{option}={asked[name]}" for name, option in OPTIONS.items() if name in asked]
    for name, option in OF_GPUS.items():
        if counted := list(_counted(asked.get(name, ""), by_name=name == "TresPerNode")):
            options.append(f"--{option}={','.join(counted)}")
    options += SHARING.get(asked.get("OverSubscribe", ""), [])
    options += ["--no-requeue"] if asked.get("Requeue") == "0" else []
    return [*options, *_outputs(asked)]


def _counted(tres: str, *, by_name: bool) -> Iterator[str]:
    """Of Slurm's `cpu=8,gres:gpu:h100:4` or `gres/gpu:h100=4`: `gpu:h100:4`, or without `by_name` `h100:4`."""
    for one in re.findall(r"(?:^|,)(?:gres[:/])([^,]+)", tres):
        name, _, count = one.replace("=", ":").partition(":")
        if by_name:
            yield f"{name}:{count}" if count else name
        elif name == "gpu":
            yield count or "1"


def _outputs(fields: Mapping[str, str]) -> Iterator[str]:
    """Where the job prints; in the name of the file with the number of the next job in place of this one's."""
    if "ArrayJobId" in fields or "JobId" not in fields:
        return

    def pattern(path: str) -> str:
        directory, slash, name = path.replace("%", "%%").rpartition("/")
        return directory + slash + re.sub(rf"(?<![A-Za-z0-9]){fields['JobId']}(?![A-Za-z0-9])", "%j", name)

    if output := fields.get("StdOut"):
        yield f"--output={pattern(output)}"
    if (errors := fields.get("StdErr")) and errors != output:
        yield f"--error={pattern(errors)}"


def requeue(run: RunDirectory, attempt: Path, allocation: Allocation, config: RunConfig) -> int:
    """Requeue the job or submit a successor; returns the exit code of this job, unless Slurm ends it first.

    The last line that is printed says what happens next.
    """
    done = allocation.requeues
    if (reason := fruitless(run)) is not None:
        return _report(f"not again: {reason}", code=FAILED)
    fields = show_job(allocation.job_id)
    state, by_hand = fields.get("JobState"), f"continue it with: {shlex.join(submission(run))}"
    if _is_put_back(fields, allocation):
        return _report(f"Slurm has put job {allocation.job_id} back in the queue")
    if state is None and stop_requested(run) is Why.TERMINATED:
        return _report(f"Slurm is ending this job, and does not say whether it runs it again; if not, {by_hand}")
    ending = state not in (None, "RUNNING")
    if ending and not _may_follow(fields):
        return _report(f"Slurm has ended job {allocation.job_id}, and nothing runs it again; {by_hand}")
    if done >= config.cluster.max_requeues:
        most = f"cluster.max_requeues is {config.cluster.max_requeues}"
        return _report(f"not again: this was attempt {done + 1}, {most}; {by_hand}")
    commands = {
        f"putting job {allocation.job_id} back in the queue": lambda: ["scontrol", "requeue", allocation.job_id],
        f"submitting a job that continues this run after job {allocation.job_id}": lambda: _successor(
            run, attempt, allocation
        ),
    }
    if ending:
        del commands[next(iter(commands))]
    try:
        if out_of_reach():
            written = {what: command() for what, command in commands.items()}
            write_atomically(attempt / AGAIN_FILE, fallback_script(written, by_hand))
            return TRY_AGAIN
        for what, command in commands.items():
            print(what, file=sys.stderr, flush=True)  # the first command may end this job
            said, succeeded = _try_command(command())
            if said:
                print(said, file=sys.stderr)
            if succeeded:
                _record_successor(run, said)
                return TRY_AGAIN
    except OSError as error:  # a full disk
        print(error, file=sys.stderr)
    return _report(by_hand)


def _is_put_back(fields: Mapping[str, str], allocation: Allocation) -> bool:
    """Whether Slurm has put the job back already, asked to or because of a preemption."""
    restarts = fields.get("Restarts", "0")
    return fields.get("JobState") == "PENDING" or (restarts.isdigit() and int(restarts) > allocation.restarts)


def _may_follow(fields: Mapping[str, str]) -> bool:
    """Whether Slurm ends this job for its own reasons, so that nobody minds another one: time limit or preemption."""
    return fields.get("Reason") == "TimeLimit" or fields.get("PreemptTime", "None") not in UNASKED


def fallback_script(commands: Mapping[str, Sequence[str]], by_hand: str) -> str:
    """Shell code that tries these commands (message → command) until one succeeds."""
    tried = [f"echo {shlex.quote(what)} >&2\n{shlex.join(command)} && exit" for what, command in commands.items()]
    return "\n".join([*tried, f"echo {shlex.quote(by_hand)} >&2", ""])


def fruitless(run: RunDirectory) -> str | None:
    """Why the run is over: too many of its last attempts left no newer checkpoint. None if it is not.

    Also recorded in `failure.json`, unless the last attempt has its own.
    """
    count = fruitless_attempts(run)
    if count < MOST_FRUITLESS:
        return None
    last = run.attempts()[-1]
    outcome = read_outcome(last)
    why = f"{count} attempts in a row ended without a newer checkpoint"
    ended = outcome.why.splitlines()[0] if outcome and outcome.why else "it was killed"
    if not run.failure.exists():
        record = {"node": 0, "host": os.uname().nodename, "role": "job", "code": None, "signal": None, "tail": []}
        record |= {"why": f"{why}; the last: {ended}", "cause": why, "hint": _more_time(run, ended)}
        write_json(run.failure, record | {"attempt": last.name, "time": time.time(), "others": []})
    return f"{why}; the last: {ended}\n  → {_more_time(run, ended)}"


def _more_time(run: RunDirectory, ended: str) -> str:
    where = shlex.quote(str(run.path))
    if "limit" in ended:
        return (
            f"give a job more time (--set cluster.time=…) or save more often (--set grpo.save_steps=1); "
            f"what it was at: grpo-dist logs {where}"
        )
    return f"what it was at when it ended: grpo-dist logs {where}; once that is mended, submit it again"


def submission(run: RunDirectory) -> list[str]:
    """The command that submits another job of this run."""
    return ["sbatch", f"--chdir={run.path}", str(run.path / JOB_FILE)]


def _successor(run: RunDirectory, attempt: Path, allocation: Allocation) -> list[str]:
    """The command that submits the next job of the chain: with the options and the script of this one."""
    start = read_start(attempt)
    components = (start and start.options) or [options_of(one) for one in show_components(allocation.job_id)]
    options = [f"--dependency=afterany:{allocation.job_id}", f"--chdir={_work_directory(run)}"]
    for index, component in enumerate(components):
        options += [":", *component] if index else component
    variables = [f"{CHAIN_VARIABLE}={allocation.requeues + 1}", f"{RUN_VARIABLE}={run.path}"]
    if (passed := os.environ.get("SLURM_EXPORT_ENV", "ALL")) != "ALL":
        kept = [] if passed in ("NONE", "NIL") else [passed]
        options.insert(0, f"--export={','.join([*kept, variables[0]])}")
    # sbatch would take this job's variables as options.
    own = [f"--unset={name}" for name in sorted(os.environ) if re.match("SLURM_(?!CONF)|SBATCH_", name)]
    submitted_in = os.environ.get("SLURM_SUBMIT_DIR", "")
    where = [f"--chdir={submitted_in}"] if os.path.isdir(submitted_in) else []
    script = _next_script(run, attempt, is_array_task="_" in allocation.name)
    arguments = [str(script), str(run.config), "--output", str(run.path)]
    return ["env", *where, *own, *variables, "sbatch", *options, *arguments]


def _work_directory(run: RunDirectory) -> str:
    """Where this job runs, as long as it is there."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return str(run.path)


def _next_script(run: RunDirectory, attempt: Path, *, is_array_task: bool) -> Path:
    """The script of the next job: that of this job, be it the user's own. Those of an array name several runs."""
    submitted = attempt / SUBMITTED
    written = run.path / JOB_FILE if is_array_task or not submitted.exists() else submitted
    lines = written.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
    for index, line in enumerate(lines):
        if line.startswith("#SBATCH"):
            lines[index] = IN_SCRIPT.sub("", line)
        elif line.strip() and not line.startswith("#"):
            break  # sbatch reads no further
    script = attempt / NEXT
    script.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    return script


def _record_successor(run: RunDirectory, said: str) -> None:
    """Let `status` and `cancel` find the job that waits for this one, before it has begun."""
    if submitted := re.search(r"Submitted batch job (\d+)", said):
        write_job(run, submitted[1], show_job(submitted[1]))


def _try_command(command: Sequence[str]) -> tuple[str, bool]:
    """Run the command: (what Slurm says, whether it succeeds)."""
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=SLURM_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), False
    return (asked.stderr + asked.stdout).strip(), asked.returncode == 0


def _report(what: str, *, code: int = TRY_AGAIN) -> int:
    print(what, file=sys.stderr)
    return code
