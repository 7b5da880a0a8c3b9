"""Calling one of Slurm's programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from grpo_dist.errors import SlurmError

TIMEOUT_SECONDS = 120.0
"""Slurm's programs try again for a while themselves when slurmctld does not answer."""

KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
NO_SLURM = "log in where Slurm is (or mend PATH); without Slurm, `grpo-dist run CONFIG` trains on this machine"
NO_CONTROLLER = "slurmctld does not answer: scontrol ping; try again later"

Advice = Callable[[str], str | None]
"""Slurm's words → what to type."""


def call(program: str, *arguments: str, stdin: str = "", advice: Advice = lambda words: None) -> tuple[str, str]:
    """What the program writes: (standard output, standard error).

    Raises:
        SlurmError: it is not there, does not answer, or ends with an error; its own words are in the message.
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
            what, hint="does slurmctld run? scontrol ping; squeue --me shows whether a job came of it"
        ) from error
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}, without a word"
        quoted = "\n".join(f"  | {line}" for line in words.splitlines())
        silent = "contact slurm controller" in words.lower()
        raise SlurmError(f"{program} refused:\n{quoted}", hint=NO_CONTROLLER if silent else advice(words))
    return done.stdout, done.stderr


def _environment() -> dict[str, str]:
    """Ours, without what would change the question: filters of squeue, and the allocation we may be called in.

    An interactive job leaves its own SLURM_* to every program it starts, SLURM_CPU_BIND and SLURM_MEM_PER_NODE among
    them, and sbatch would hand them on to the srun of the new job.
    """
    ours = dict(os.environ)
    inside = "SLURM_JOB_ID" in ours
    return {
        name: value
        for name, value in ours.items()
        if not name.startswith("SQUEUE_") and (name in KEPT or not (inside and name.startswith("SLURM_")))
    }
