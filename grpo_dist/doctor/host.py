"""Checks of disk space, shared memory, limits (ulimit) and secrets. The value of a secret never enters a finding."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from grpo_dist.doctor.case import DoctorContext, hub_home
from grpo_dist.findings import Finding
from grpo_dist.plan.specs.lookup import hub_cache
from grpo_dist.run.trackers import has_wandb_key

GIB = 2**30
RUN_BYTES = 2 * GIB
"""For checkpoints of the adapter and its optimizer, completions and logs."""
SHARED = Path("/dev/shm")
SHARED_PER_PROCESS = 512 * 2**20
"""For NCCL's buffers between the processes of a node."""


def findings(context: DoctorContext) -> Iterator[Finding]:
    yield _disk("run-directory", context.directory, RUN_BYTES, "--output DIR on another file system")
    cache = hub_cache(context.environ)
    yield _disk("hub-cache", cache, _weights(context), "export HF_HOME=/a/large/file/system")
    yield from shared_memory(context)


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
    """The path, or its nearest parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _weights(context: DoctorContext) -> int:
    """Bytes of a model that still has to be downloaded; 0 if it is present, embedded, or of unknown size."""
    if context.config is None or context.plan is None or context.plan.memory is None:
        return 0
    name = context.config.model.name_or_path
    cached = hub_cache(context.environ) / f"models--{name.replace('/', '--')}"
    if Path(name).exists() or cached.exists() or "/" not in name:
        return 0
    trainer = context.plan.memory["roles"].get("trainer", {"components": []})
    return sum(one["bytes"] for one in trainer["components"] if one["name"] == "weights")


def shared_memory(context: DoctorContext) -> Iterator[Finding]:
    """Whether /dev/shm is large enough for the buffers between the processes of this machine."""
    if not SHARED.is_dir():
        return
    total = shutil.disk_usage(SHARED).total
    processes = max(1, context.plan.topology.gpus_per_node) if context.plan and context.here else 1
    needed = SHARED_PER_PROCESS * processes if processes > 1 else 0
    what = f"{SHARED} holds {total / GIB:,.1f} GiB"
    if total < needed:
        hint = "in a container: --shm-size=16g, or --ipc=host; else: mount -o remount,size=16g /dev/shm"
        yield Finding("shared-memory", "error", f"{what}; {processes} GPUs want {needed / GIB:,.1f} GiB", hint)
    else:
        yield Finding("shared-memory", "ok", what)


OPEN_FILES = 4096
PROCESSES = 4096
INFINIBAND = Path("/sys/class/infiniband")


def limit_findings(context: DoctorContext) -> Iterator[Finding]:
    yield _limit("open-files", resource.RLIMIT_NOFILE, OPEN_FILES, "ulimit -n", "nofile")
    yield _limit("processes", resource.RLIMIT_NPROC, PROCESSES, "ulimit -u", "nproc")
    if context.several_nodes and INFINIBAND.is_dir():
        locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        if locked == resource.RLIM_INFINITY:
            yield Finding("locked-memory", "ok", "unlimited")
        else:
            what = f"{locked // 1024:,} KiB may be locked; InfiniBand registers all buffers it sends"
            hint = "ulimit -l unlimited; under Slurm: PropagateResourceLimitsExcept=MEMLOCK in slurm.conf"
            yield Finding("locked-memory", "warning", what, hint)


def _limit(name: str, which: int, wanted: int, command: str, item: str) -> Finding:
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Finding(name, "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}")
    what = f"{soft:,}, fewer than {wanted:,}"
    if soft == hard:
        hint = f"only root can raise it: `* hard {item} {wanted}` in /etc/security/limits.conf"
        return Finding(name, "warning", what, hint)
    highest = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return Finding(name, "warning", what, f"{command} {highest}")


def secret_findings(context: DoctorContext) -> Iterator[Finding]:
    yield Finding("hub-token", "ok", _hub_token(context))
    if context.config and "wandb" in context.config.tracking:
        if has_wandb_key(context.environ):
            yield Finding("wandb-key", "ok", "there")
        else:
            what = "none: Weights & Biases will write into the run directory only"
            yield Finding("wandb-key", "warning", what, "wandb login, or: export WANDB_API_KEY=<your key>")


def _hub_token(context: DoctorContext) -> str:
    if context.environ.get("HF_TOKEN"):
        return "HF_TOKEN is set"
    file = Path(context.environ.get("HF_TOKEN_PATH") or hub_home(context.environ) / "token").expanduser()
    if file.is_file():
        return f"in {file}"
    return "none; public models and data need none (for others: export HF_TOKEN=<your token>)"
