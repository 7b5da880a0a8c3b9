"""What Slurm says of a job that is going on, and of itself."""

from __future__ import annotations

import os
import re
import subprocess

SLURM_SECONDS = 60.0
KILL_WAIT_SECONDS = 30.0
"""Slurm's default of KillWait."""
SHOWN_VARIABLE = "GRPO_DIST_JOB"
"""Set where Slurm's programs are out of reach, in a container: what scontrol told the batch script of the job."""


def out_of_reach() -> bool:
    """Whether Slurm has to be asked by the batch script."""
    return SHOWN_VARIABLE in os.environ


def shown(job_id: str) -> dict[str, str]:
    """The fields of `scontrol show job`; none when Slurm does not answer."""
    told = os.environ[SHOWN_VARIABLE] if out_of_reach() else _show("job", job_id)
    return dict(re.findall(r"(\w+)=(\S*)", told))


def kill_wait(job_id: str) -> float | None:
    """Seconds between Slurm's SIGTERM to the job and its SIGKILL, if Slurm has ended the job; None while that may go
    on, as in the grace of a preemption, and when Slurm does not answer."""
    if shown(job_id).get("JobState", "RUNNING") == "RUNNING":
        return None
    found = re.search(r"^KillWait\s*= (\d+) sec", _show("config"), re.MULTILINE)
    return KILL_WAIT_SECONDS if found is None else float(found[1])


def _show(*what: str) -> str:
    command = ["scontrol", "--oneliner", "show", *what]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SLURM_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def seconds(limit: str) -> int | None:
    """Slurm's days-hours:minutes:seconds; None for UNLIMITED and what is no time."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
