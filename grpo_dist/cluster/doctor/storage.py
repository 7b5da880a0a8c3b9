"""Room on disks and in shared memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from grpo_dist.cluster.doctor.case import Case
from grpo_dist.findings import Finding
from grpo_dist.plan.architecture.lookup import hub_cache

GIB = 2**30
RUN_BYTES = 2 * GIB
"""Checkpoints hold the adapter and its optimizer; completions and logs come on top."""
SHARED = Path("/dev/shm")
SHARED_PER_PROCESS = 512 * 2**20
"""NCCL's buffers between the processes of a node."""


def findings(case: Case) -> Iterator[Finding]:
    yield _disk("run-directory", case.directory, RUN_BYTES, "--output DIR on another file system")
    cache = hub_cache(case.environ)
    yield _disk("hub-cache", cache, _weights(case), "export HF_HOME=/a/large/file/system")
    yield from shared_memory(case)


def _disk(name: str, path: Path, needed: int, hint: str) -> Finding:
    there = _existing(path.absolute())
    free = shutil.disk_usage(there).free
    what = f"{free / GIB:,.1f} GiB free for {path}"
    if not os.access(there, os.W_OK):
        return Finding(name, "error", f"{there} cannot be written", hint)
    if free < needed:
        return Finding(name, "error", f"{what}; {needed / GIB:,.1f} GiB wanted", hint)
    return Finding(name, "ok", what)


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def _weights(case: Case) -> int:
    """Bytes of a model that has to be downloaded still; 0 when it is there, embedded, or of unknown size."""
    if case.config is None or case.plan is None or case.plan.memory is None:
        return 0
    name = case.config.model.name_or_path
    cached = hub_cache(case.environ) / f"models--{name.replace('/', '--')}"
    if Path(name).exists() or cached.exists() or "/" not in name:
        return 0
    trainer = case.plan.memory["roles"].get("trainer", {"components": []})
    return sum(part["bytes"] for part in trainer["components"] if part["name"] == "weights")


def shared_memory(case: Case) -> Iterator[Finding]:
    """Whether the processes of this machine can exchange their buffers there."""
    if not SHARED.is_dir():
        return
    total = shutil.disk_usage(SHARED).total
    processes = max(1, case.plan.topology.gpus_per_node) if case.plan and case.here else 1
    needed = SHARED_PER_PROCESS * processes if processes > 1 else 0
    what = f"{SHARED} holds {total / GIB:,.1f} GiB"
    if total < needed:
        hint = "in a container: --shm-size=16g, or --ipc=host; else: mount -o remount,size=16g /dev/shm"
        yield Finding("shared-memory", "error", f"{what}; {processes} GPUs want {needed / GIB:,.1f} GiB", hint)
    else:
        yield Finding("shared-memory", "ok", what)
