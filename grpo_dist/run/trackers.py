"""Environment variables of the experiment trackers."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256

from grpo_dist.run.directory import RunDirectory

WANDB_HOST = "api.wandb.ai"


def tracker_environment(trackers: Sequence[str], run: RunDirectory, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that make the trackers write to the run directory; those the user has set are kept.

    Without a key Weights & Biases works offline, rather than ask a job for one. A resumed run continues its record.
    """
    variables = {
        "TRACKIO_DIR": str(run.path / "trackio"),
        "TENSORBOARD_LOGGING_DIR": str(run.path / "tensorboard"),
        "WANDB_DIR": str(run.path),
        "WANDB_PROJECT": "grpo-dist",
        "WANDB_RUN_ID": sha256(str(run.path).encode()).hexdigest()[:16],
        "WANDB_RESUME": "allow",
    }
    if "wandb" in trackers and not has_wandb_key(environ):
        variables["WANDB_MODE"] = "offline"
    return {name: value for name, value in variables.items() if name not in environ}


def has_wandb_key(environ: Mapping[str, str]) -> bool:
    """Whether a key is in the environment or in ~/.netrc."""
    if environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.path.expanduser("~/.netrc")).authenticators(WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False
