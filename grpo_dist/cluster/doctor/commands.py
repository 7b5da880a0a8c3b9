"""Other programs, asked with a time-out."""

from __future__ import annotations

import shutil
import subprocess

SECONDS = 20.0


def output(*argv: str, timeout_s: float = SECONDS) -> str | None:
    """What a program printed; None when it is not there, fails, or does not answer in time."""
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def answers(*argv: str) -> bool:
    """Whether a program is there and ends well."""
    return output(*argv) is not None
