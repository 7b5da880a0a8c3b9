"""What Slurm says of a job that is going on."""

from __future__ import annotations

import os
import re
import subprocess

SLURM_SECONDS = 60.0
SHOWN_VARIABLE = "GRPO_DIST_JOB"
"""Set where Slurm's programs are out of reach, in a container: what scontrol told the batch script of the job."""


def out_of_reach() -> bool:
    """Whether Slurm has to be asked by the batch script."""
    return SHOWN_VARIABLE in os.environ


def shown(job_id: str) -> dict[str, str]:
    """The fields of `scontrol show job`; none when Slurm does not answer."""
    told = os.environ[SHOWN_VARIABLE] if out_of_reach() else _ask(job_id)
    return dict(re.findall(r"(\w+)=(\S*)", told))


def _ask(job_id: str) -> str:
    command = ["scontrol", "--oneliner", "show", "job", job_id]
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
