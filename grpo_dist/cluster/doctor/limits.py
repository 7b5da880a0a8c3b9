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
    yield _limit("open-files", resource.RLIMIT_NOFILE, OPEN_FILES, "ulimit -n")
    yield _limit("processes", resource.RLIMIT_NPROC, PROCESSES, "ulimit -u")
    if case.several_nodes and INFINIBAND.is_dir():
        locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        if locked == resource.RLIM_INFINITY:
            yield Finding("locked-memory", "ok", "unlimited")
        else:
            what = f"{locked // 1024:,} KiB may be locked; InfiniBand registers all buffers it sends"
            hint = "ulimit -l unlimited; under Slurm: PropagateResourceLimitsExcept=MEMLOCK in slurm.conf"
            yield Finding("locked-memory", "warning", what, hint)


def _limit(name: str, which: int, wanted: int, command: str) -> Finding:
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Finding(name, "ok", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}")
    highest = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return Finding(name, "warning", f"{soft:,}, fewer than {wanted:,}", f"{command} {highest}")
