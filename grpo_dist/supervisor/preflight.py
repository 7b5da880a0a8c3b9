"""Whether the nodes of a job can run a plan together, from what each says of itself; pure.

What a node knows of itself, for the head to compare before anything is started on any of them.

What is wrong with a node of a job before anything starts there: the doctor's findings that are not well.
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import grpo_dist
from grpo_dist.config import load_config
from grpo_dist.doctor import IN_A_JOB, doctor_context, examine
from grpo_dist.findings import Finding
from grpo_dist.plan import LaunchPlan
from grpo_dist.run.directory import RunDirectory
from grpo_dist.supervisor.task import OFFLINE

HOSTS_NAMED = 4


def node_findings(run: RunDirectory) -> tuple[Finding, ...]:
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
    found = examine(doctor_context(config, plan, environ=environ, directory=run.path.parent), groups)
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


COMPARED_PACKAGES = ("torch", "trl", "transformers", "peft", "accelerate", "datasets", "deepspeed", "vllm")
QUERY = ("nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits")
QUERY_SECONDS = 60.0


@dataclass(frozen=True)
class NodeInfo:
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
    def from_dict(cls, fields: dict[str, Any]) -> NodeInfo:
        ailments = tuple(Finding(**finding) for finding in fields["ailments"])
        return cls(**{**fields, "gpus": tuple(fields["gpus"]), "ailments": ailments})


def node_info(node: int, run: RunDirectory) -> NodeInfo:
    return NodeInfo(
        node=node,
        host=platform.node(),
        code=_digest(sorted(Path(grpo_dist.__file__).parent.rglob("*.py"))),
        packages={"python": platform.python_version(), **_versions()},
        run=_digest([run.config, run.plan]) if run.exists() else None,
        gpus=_visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES")),
        disk=shutil.disk_usage(run.path).free if run.path.exists() else 0,
        ailments=node_findings(run) if run.exists() else (),
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


def _visible_gpus(visible: str | None) -> tuple[int, ...]:
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


MIB_IN_USE = 1024
"""More than this on a GPU means somebody works on it: a driver alone takes a few hundred."""
CLOCK_SECONDS = 5.0
DISK_BYTES = 64 << 20
CHECKPOINTS = 3
"""Room for so many: the two that are kept and the one being written."""


def problems(nodes: Sequence[NodeInfo], plan: LaunchPlan, run: Path, checkpoint_bytes: int) -> Iterator[str]:
    """What keeps them from it, one line each; the head's facts come first.

    Args:
        checkpoint_bytes: size of one checkpoint, 0 when none was written yet.
    """
    head = nodes[0]
    if len(nodes) != plan.topology.nodes:
        yield f"planned for {plan.topology.nodes} nodes, {len(nodes)} came"
    for node in nodes:
        if node.run is None:
            yield f"{node.host}: {run} is not there; it has to lie on a file system all nodes see"
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
    yield from by_hosts(((node.host, node.ailments) for node in nodes), "error")
    yield from _twice([node.host for node in nodes], "there are two supervisors on {}; a job runs one task per node")


def warnings(nodes: Sequence[NodeInfo], received: Callable[[NodeInfo], float]) -> Iterator[str]:
    """What is odd and keeps nobody from anything.

    Args:
        received: the head's clock when a node's facts arrived.
    """
    for node in nodes:
        skew = node.clock - received(node)
        if abs(skew) > CLOCK_SECONDS:
            ahead = "ahead of" if skew > 0 else "behind"
            yield f"{node.host}: its clock is {abs(skew):.0f} s {ahead} {nodes[0].host}'s; times in logs differ"
    yield from by_hosts(((node.host, node.ailments) for node in nodes), "warning")


def _gpus(node: NodeInfo, plan: LaunchPlan) -> Iterator[str]:
    planned = plan.topology.gpus_per_node
    if len(node.gpus) < planned:
        yield f"{node.host}: {len(node.gpus)} GPUs, {planned} planned"
    for index, used in enumerate(node.gpus[:planned]):
        if used > MIB_IN_USE:
            yield f"{node.host}: GPU {index} has {used} MiB in use by somebody else"


def _twice(hosts: Sequence[str], what: str) -> Iterator[str]:
    yield from (what.format(host) for host, count in Counter(hosts).items() if count > 1)
