"""All groups of findings, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from grpo_dist.cluster.doctor import devices, hub, limits, network, packages, secrets, slurm, storage
from grpo_dist.cluster.doctor.case import Case
from grpo_dist.findings import Finding

GROUPS: dict[str, Callable[[Case], Iterator[Finding]]] = {
    "packages": packages.findings,
    "devices": devices.findings,
    "storage": storage.findings,
    "limits": limits.findings,
    "network": network.findings,
    "slurm": slurm.findings,
    "hub": hub.findings,
    "secrets": secrets.findings,
}


def examine(case: Case) -> list[Finding]:
    """Everything there is to say, also what is well. A group that breaks is an error of its own and stops no other."""
    found = []
    for name, group in GROUPS.items():
        try:
            found += group(case)
        except Exception as error:
            what = f"the examination itself failed: {type(error).__name__}: {error}"
            found.append(Finding(name, "warning", what, "please report this"))
    return found
