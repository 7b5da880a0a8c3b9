"""Runs all groups of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from grpo_dist.doctor import devices, host, hub, packages, slurm
from grpo_dist.doctor.case import DoctorContext
from grpo_dist.findings import Finding

Group = Callable[[DoctorContext], Iterator[Finding]]

GROUPS: dict[str, Group] = {
    "packages": packages.findings,
    "devices": devices.findings,
    "storage": host.findings,
    "limits": host.limit_findings,
    "network": host.network_findings,
    "slurm": slurm.findings,
    "hub": hub.findings,
    "sandbox": host.sandbox_findings,
    "secrets": host.secret_findings,
}
IN_A_JOB: dict[str, Group] = {
    "packages": packages.findings,
    "storage": host.shared_memory_findings,
    "limits": host.limit_findings,
    "network": host.pins,
    "hub": hub.model,
    "sandbox": host.sandbox_findings,
    "secrets": host.secret_findings,
}
"""The checks on each node when a job starts. `NodeInfo` covers GPUs and disk space; partition, ports and addresses are
settled by then; and the next stage imports PyTorch, which takes seconds, and loads the data anyway."""


def examine(context: DoctorContext, groups: Mapping[str, Group] = GROUPS) -> list[Finding]:
    """The findings of all groups, "ok" ones included. A group that fails becomes a finding and stops no other group."""
    found = []
    for name, group in groups.items():
        try:
            found += group(context)
        except Exception as error:
            what = f"the examination itself failed: {type(error).__name__}: {error}"
            found.append(Finding(name, "warning", what, "please report this"))
    return found
