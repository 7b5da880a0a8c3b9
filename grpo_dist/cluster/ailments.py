"""What is wrong with a node of a job before anything starts there: the doctor's findings that are not well."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from grpo_dist.cluster.commands import OFFLINE
from grpo_dist.cluster.doctor import IN_A_JOB, case_of, examine
from grpo_dist.config import load_config
from grpo_dist.findings import Finding
from grpo_dist.plan import LaunchPlan
from grpo_dist.run_directory import RunDirectory

HOSTS_NAMED = 4


def ailments_of(run: RunDirectory) -> tuple[Finding, ...]:
    """Of this node, for a run; the Hub is never asked. Takes a tenth of a second: nothing large is imported.

    Raises:
        GrpoDistError: the run's configuration cannot be read.
    """
    config = load_config(run.config)
    plan = LaunchPlan.from_json(run.plan.read_text(encoding="utf-8"))
    environ = {**OFFLINE, **os.environ}
    groups = dict(IN_A_JOB)
    if environ["HF_HUB_OFFLINE"] == "0":  # the site's nodes are online: what is not cached may come from the Hub
        del groups["hub"]
    found = examine(case_of(config, plan, environ=environ, directory=run.path.parent), groups)
    return tuple(finding for finding in found if finding.status != "ok")


def by_hosts(ailments: Iterable[tuple[str, Sequence[Finding]]], status: str) -> Iterator[str]:
    """One line for each different finding of a status, with the hosts that have it.

    Args:
        ailments: of each node its name and findings.
    """
    hosts: dict[Finding, list[str]] = {}
    for host, found in ailments:
        for finding in found:
            if finding.status == status:
                hosts.setdefault(finding, []).append(host)
    for finding, having in hosts.items():
        yield f"{_among(having)}: {finding.name}: {finding.what}" + (f" → {finding.hint}" if finding.hint else "")


def _among(hosts: Sequence[str]) -> str:
    others = len(hosts) - HOSTS_NAMED
    return ", ".join(hosts[:HOSTS_NAMED]) + (f" and {others} more" if others > 0 else "")
