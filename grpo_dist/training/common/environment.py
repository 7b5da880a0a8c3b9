"""The software and hardware a run was created with."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from typing import Any

import torch

from grpo_dist import __version__
from grpo_dist.doctor.packages import installed
from grpo_dist.progress import say
from grpo_dist.run.directory import write_json
from grpo_dist.training.common.backend import NAMES, Backend
from grpo_dist.training.common.process import Run

PACKAGES = (
    "torch",
    "trl",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "deepspeed",
    "vllm",
    "unsloth",
    "math-verify",
)


def note_environment(run: Run, backend: Backend) -> None:
    """Record in the run directory the software and hardware of the run, and report the backend."""
    say(f"backend: {NAMES[backend.name]} ({backend.reason})")
    write_json(run.directory.environment, environment(backend))


def environment(backend: Backend) -> dict[str, Any]:
    """Versions and devices; JSON-ready. Packages that are not installed are left out."""
    return {
        "grpo_dist": __version__,
        "backend": asdict(backend),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Name → version of the packages that are installed."""
    return {name: found for name in PACKAGES if (found := installed(name))}
