"""What Slurm says of a job that is going on."""

from __future__ import annotations

import re
import subprocess

SLURM_SECONDS = 60.0


def shown(job_id: str) -> dict[str, str]:
    """The fields of `scontrol show job`; none when Slurm does not answer."""
    command = ["scontrol", "--oneliner", "show", "job", job_id]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=SLURM_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(re.findall(r"(\w+)=(\S*)", asked.stdout))


def seconds(limit: str) -> int | None:
    """Slurm's days-hours:minutes:seconds; None for UNLIMITED and what is no time."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", limit)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
