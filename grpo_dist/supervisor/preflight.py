"""Whether the nodes of a job can run a plan together, checked before any task starts.

Each agent collects a `NodeInfo` of its node, among it the doctor's warnings and errors. The coordinator compares them:
`problems` stop the attempt, `warnings` are only shown.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpo_dist
from grpo_dist.config import load_config
from grpo_dist.doctor import IN_A_JOB, doctor_context, examine
from grpo_dist.doctor.packages import installed
from grpo_dist.findings import Finding
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.launch import read_plan
from grpo_dist.run.directory import RunDirectory
from grpo_dist.supervisor.task import OFFLINE
from grpo_dist.text import first_few

HOSTS_NAMED = 4


def node_findings(run: RunDirectory) -> tuple[Finding, ...]:
    """The doctor's warnings and errors about this node, for a run. The Hub is not contacted.

    Takes a tenth of a second: nothing large is imported.

    Raises:
        GrpoDistError: the run's configuration cannot be read.
    """
    config = load_config(run.config)
    plan = read_plan(run)
    environ = {**OFFLINE, **os.environ}
    groups = dict(IN_A_JOB)
    if environ["HF_HUB_OFFLINE"] == "0":  # nodes are online here: what is not cached may come from the Hub
        del groups["hub"]
    found = examine(doctor_context(config, plan, environ=environ, directory=run.path.parent), groups)
    return tuple(finding for finding in found if finding.status != "ok")


def by_hosts(findings: Iterable[tuple[str, Sequence[Finding]]], status: str) -> Iterator[str]:
    """One line for each different finding of a status, with the hosts that have it.

    Args:
        findings: pairs of a host name and the findings of that host.
    """
    hosts: dict[Finding, list[str]] = {}
    for host, found in findings:
        for finding in found:
            if finding.status == status:
                hosts.setdefault(finding, []).append(host)
    for finding, having in hosts.items():
        hint = f" → {finding.hint}" if finding.hint else ""
        yield f"{first_few(having, HOSTS_NAMED)}: {finding.name}: {finding.what}{hint}"


COMPARED_PACKAGES = ("torch", "trl", "transformers", "peft", "accelerate", "datasets", "deepspeed", "vllm")
QUERY = ("nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits")
QUERY_SECONDS = 60.0


@dataclass(frozen=True)
class NodeInfo:
    """What a node reports about itself."""

    node: int
    host: str
    code: str
    """Digest of the source of this program."""
    packages: dict[str, str]
    """Name → version, Python included."""
    run: str | None
    """Digest of the run's configuration and plan as this node reads them; None if it does not see them."""
    gpus: tuple[int, ...]
    """MiB in use on each GPU this node gives the job; -1 if unknown."""
    disk: int
    """Bytes free on the file system of the run directory."""
    findings: tuple[Finding, ...]
    """The doctor's warnings and errors; empty if the node does not see the run directory."""
    clock: float
    """Seconds since 1970."""

    def to_dict(self) -> dict[str, Any]:
        """The message to the coordinator, which calls the findings `ailments`."""
        fields = asdict(self)
        fields["ailments"] = fields.pop("findings")
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> NodeInfo:
        """The inverse of `to_dict`."""
        fields = dict(fields)
        findings = tuple(Finding(**finding) for finding in fields.pop("ailments"))
        return cls(**{**fields, "gpus": tuple(fields["gpus"]), "findings": findings})


def node_info(node: int, run: RunDirectory) -> NodeInfo:
    """What this machine is, as node number `node` of the job."""
    return NodeInfo(
        node=node,
        host=platform.node(),
        code=_digest(sorted(Path(grpo_dist.__file__).parent.rglob("*.py"))),
        packages={"python": platform.python_version(), **_versions()},
        run=_digest([run.config, run.plan]) if run.exists() else None,
        gpus=_visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES")),
        disk=shutil.disk_usage(run.path).free if run.path.exists() else 0,
        findings=node_findings(run) if run.exists() else (),
        clock=time.time(),
    )


def _digest(files: list[Path]) -> str:
    digest = sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _versions() -> dict[str, str]:
    return {name: found for name in COMPARED_PACKAGES if (found := installed(name))}


def _visible_gpus(visible: str | None) -> tuple[int, ...]:
    """MiB in use on each GPU, from nvidia-smi, which sees only the job's GPUs under Slurm's cgroups.

    Without nvidia-smi: -1 for each GPU that CUDA_VISIBLE_DEVICES names.
    """
    named = [one for one in (visible or "").split(",") if one]
    try:
        asked = subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True)
        used = dict(map(int, line.split(",")) for line in asked.stdout.splitlines() if line.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return (-1,) * len(named)
    if all(one.isdigit() and int(one) in used for one in named) and named:
        return tuple(used[int(one)] for one in named)
    return tuple(used.values()) if visible is None else (-1,) * len(named)


MIB_IN_USE = 1024
"""More than this means that another program uses the GPU: the driver alone takes a few hundred."""
CLOCK_SECONDS = 5.0
DISK_BYTES = 64 << 20
CHECKPOINTS = 3
"""Checkpoints that must fit on the disk: the two that are kept and the one being written."""


def problems(nodes: Sequence[NodeInfo], plan: LaunchPlan, run: Path, checkpoint_bytes: int) -> Iterator[str]:
    """What keeps these nodes from running the plan, one line each.

    Args:
        nodes: all nodes of the job, the first node first.
        checkpoint_bytes: size of one checkpoint, 0 when none was written yet.
    """
    head = nodes[0]
    if len(nodes) != plan.topology.nodes:
        yield f"planned for {plan.topology.nodes} nodes, {len(nodes)} came"
    for node in nodes:
        if node.run is None:
            yield f"{node.host}: {run} is not there; it must be on a file system that all nodes see"
        elif node.run != head.run:
            yield f"{node.host}: reads another config.yaml or plan.json in {run} than {head.host}"
        if node.code != head.code:
            yield f"{node.host}: runs other code of grpo-dist than {head.host} ({node.code}, {head.code})"
        for name in sorted({*node.packages, *head.packages}):
            here, there = node.packages.get(name), head.packages.get(name)
            if here != there:
                yield f"{node.host}: {name} {here or 'is not installed'}, on {head.host} {there or 'not installed'}"
        yield from _gpus(node, plan)
        needed = max(DISK_BYTES, CHECKPOINTS * checkpoint_bytes)
        if node.run is not None and node.disk < needed:
            yield f"{node.host}: {node.disk >> 20} MiB left at {run}, checkpoints need {needed >> 20} MiB"
    yield from by_hosts(((node.host, node.findings) for node in nodes), "error")
    yield from _shared_hosts(nodes)


def warnings(nodes: Sequence[NodeInfo], received: Callable[[NodeInfo], float]) -> Iterator[str]:
    """What is unusual but harmless, one line each.

    Args:
        received: the coordinator's clock when a node's report arrived.
    """
    for node in nodes:
        skew = node.clock - received(node)
        if abs(skew) > CLOCK_SECONDS:
            ahead = "ahead of" if skew > 0 else "behind"
            yield f"{node.host}: its clock is {abs(skew):.0f} s {ahead} {nodes[0].host}'s; times in logs differ"
    yield from by_hosts(((node.host, node.findings) for node in nodes), "warning")


def _gpus(node: NodeInfo, plan: LaunchPlan) -> Iterator[str]:
    planned = plan.topology.gpus_per_node
    if len(node.gpus) < planned:
        yield f"{node.host}: {len(node.gpus)} GPUs, {planned} planned"
    for index, used in enumerate(node.gpus[:planned]):
        if used > MIB_IN_USE:
            yield f"{node.host}: GPU {index} has {used} MiB in use by somebody else"


def _shared_hosts(nodes: Sequence[NodeInfo]) -> Iterator[str]:
    for host, count in Counter(node.host for node in nodes).items():
        if count > 1:
            yield f"there are two supervisors on {host}; a job runs one task per node"
