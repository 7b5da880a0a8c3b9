"""What the system lets a process have (ulimit)."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from grpo_dist.cluster.doctor.case import Case
from grpo_dist.findings import Finding

OPEN_FILES = 4096
PROCESSES = 4096
INFINIBAND = Path("/sys/class/infiniband")


def findings(case: Case) -> Iterator[Finding]:
    yield _limit("open-files", resource.RLIMIT_NOFILE, OPEN_FILES, "ulimit -n", "nofile")
    yield _limit("processes", resource.RLIMIT_NPROC, PROCESSES, "ulimit -u", "nproc")
    if case.several_nodes and INFINIBAND.is_dir():
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
