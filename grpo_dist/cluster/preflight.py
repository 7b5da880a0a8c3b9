"""Whether the nodes of a job can run a plan together, from what each says of itself; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from grpo_dist.cluster.ailments import by_hosts
from grpo_dist.cluster.facts import Facts
from grpo_dist.plan import LaunchPlan

MIB_IN_USE = 1024
"""More than this on a GPU means somebody works on it: a driver alone takes a few hundred."""
CLOCK_SECONDS = 5.0
DISK_BYTES = 64 << 20
CHECKPOINTS = 3
"""Room for so many: the two that are kept and the one being written."""


def problems(nodes: Sequence[Facts], plan: LaunchPlan, run: Path, checkpoint_bytes: int) -> Iterator[str]:
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


def warnings(nodes: Sequence[Facts], received: Callable[[Facts], float]) -> Iterator[str]:
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


def _gpus(node: Facts, plan: LaunchPlan) -> Iterator[str]:
    planned = plan.topology.gpus_per_node
    if len(node.gpus) < planned:
        yield f"{node.host}: {len(node.gpus)} GPUs, {planned} planned"
    for index, used in enumerate(node.gpus[:planned]):
        if used > MIB_IN_USE:
            yield f"{node.host}: GPU {index} has {used} MiB in use by somebody else"


def _twice(hosts: Sequence[str], what: str) -> Iterator[str]:
    yield from (what.format(host) for host, count in Counter(hosts).items() if count > 1)
