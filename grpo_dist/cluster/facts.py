"""What a node knows of itself, for the head to compare before anything is started on any of them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import grpo_dist
from grpo_dist.cluster.ailments import ailments_of
from grpo_dist.findings import Finding
from grpo_dist.run_directory import RunDirectory

COMPARED_PACKAGES = ("torch", "trl", "transformers", "peft", "accelerate", "datasets", "deepspeed", "vllm")
QUERY = ("nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits")
QUERY_SECONDS = 60.0


@dataclass(frozen=True)
class Facts:
    """One node."""

    node: int
    host: str
    code: str
    """Digest of the source of this program."""
    packages: dict[str, str]
    """Versions, Python's among them."""
    run: str | None
    """Digest of the run's configuration and plan as this node reads them; None when they are not there."""
    gpus: tuple[int, ...]
    """MiB in use on each GPU this node gives the job; -1 where nobody can say."""
    disk: int
    """Bytes left where the run directory is."""
    ailments: tuple[Finding, ...]
    """What the doctor finds wrong with the node; empty when the run is not there."""
    clock: float
    """Seconds since 1970."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Facts:
        ailments = tuple(Finding(**finding) for finding in fields["ailments"])
        return cls(**{**fields, "gpus": tuple(fields["gpus"]), "ailments": ailments})


def facts_of(node: int, run: RunDirectory) -> Facts:
    return Facts(
        node=node,
        host=platform.node(),
        code=_digest(sorted(Path(grpo_dist.__file__).parent.rglob("*.py"))),
        packages={"python": platform.python_version(), **_versions()},
        run=_digest([run.config, run.plan]) if run.exists() else None,
        gpus=_gpus(os.environ.get("CUDA_VISIBLE_DEVICES")),
        disk=shutil.disk_usage(run.path).free if run.path.exists() else 0,
        ailments=ailments_of(run) if run.exists() else (),
        clock=time.time(),
    )


def _digest(files: list[Path]) -> str:
    digest = sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _versions() -> dict[str, str]:
    found = {}
    for name in COMPARED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _gpus(visible: str | None) -> tuple[int, ...]:
    """By nvidia-smi, which Slurm's cgroups narrow to the GPUs of the job; without it as many as the mask names."""
    named = [one for one in (visible or "").split(",") if one]
    try:
        asked = subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True)
        used = dict(map(int, line.split(",")) for line in asked.stdout.splitlines() if line.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return (-1,) * len(named)
    if all(one.isdigit() and int(one) in used for one in named) and named:
        return tuple(used[int(one)] for one in named)
    return tuple(used.values()) if visible is None else (-1,) * len(named)
