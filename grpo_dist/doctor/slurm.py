"""Checks of the partitions, and whether the configuration fits one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grpo_dist.doctor.case import DoctorContext, output
from grpo_dist.findings import Finding

SINFO = ("sinfo", "--noheader", "--format=%R|%a|%l|%D|%G")
"""Partition, availability, time limit, nodes, generic resources: one line for each kind of node."""
UNLIMITED = ("infinite", "n/a")


@dataclass(frozen=True)
class Offer:
    """Nodes of one kind in one partition."""

    partition: str
    up: bool
    minutes: float
    nodes: int
    gpus: int
    """Of each node."""


def findings(context: DoctorContext) -> Iterator[Finding]:
    printed = output(*SINFO)
    partition = context.config.cluster.partition if context.config else None
    if printed is None:
        if partition or context.several_nodes:
            status = "error" if context.several_nodes else "warning"
            why = f"cluster.partition: {partition}" if partition else f"{context.plan.topology.nodes} nodes are planned"
            hint = "log in to a machine of the cluster; scontrol ping says whether its controller answers"
            yield Finding("slurm", status, f"sinfo does not answer here, and {why}", hint)
        return
    offers = parse(printed)
    for name in dict.fromkeys(offer.partition for offer in offers):
        yield Finding(f"partition-{name}", "ok", _described([one for one in offers if one.partition == name]))
    if context.config and context.plan:
        yield from _fits(context, offers, partition)


def parse(text: str) -> list[Offer]:
    """The lines of SINFO."""
    offers = []
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 5:
            name, state, limit, nodes, gres = fields
            offers.append(Offer(name, state == "up", minutes_of(limit), int(nodes), _gpus(gres)))
    return offers


def minutes_of(text: str) -> float:
    """Minutes of a time limit as Slurm reads and prints it: `90`, `1:30:00`, `90:00`, `2-12`, `2-12:30`, `infinite`.

    Unlike `slurm.client.parse_seconds`: there a lone number is in seconds, here in minutes.
    """
    if text.lower() in UNLIMITED:
        return float("inf")
    days, dash, rest = text.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return int(days) * 1440 + hours * 60 + minutes + seconds / 60
    if len(numbers) == 3:
        return numbers[0] * 60 + numbers[1] + numbers[2] / 60
    return numbers[0] + (numbers[1] / 60 if len(numbers) == 2 else 0)


def _gpus(gres: str) -> int:
    """`gpu:h100:8(S:0-1),craynetwork:4` → 8"""
    return sum(int(found) for found in re.findall(r"gpu(?::[^:,()]+)?:(\d+)", gres))


def _described(offers: Sequence[Offer]) -> str:
    kinds = ", ".join(f"{one.nodes} nodes with {one.gpus} GPUs" for one in offers)
    limit = offers[0].minutes
    longest = "no time limit" if limit == float("inf") else f"at most {limit / 60:,.4g} h"
    return f"{kinds}; {longest}{'' if offers[0].up else '; down'}"


def _fits(context: DoctorContext, offers: Sequence[Offer], partition: str | None) -> Iterator[Finding]:
    names = list(dict.fromkeys(offer.partition for offer in offers))
    if partition and partition not in names:
        what = f"cluster.partition: there is no partition {partition}; there is: {', '.join(names)}"
        yield Finding("partition", "error", what, f"--set cluster.partition={names[0] if names else 'NAME'}")
        return
    suitable = [offer for offer in offers if partition in (None, offer.partition)]
    where, plan = f"partition {partition}" if partition else "any partition", context.plan.topology
    enough = [offer for offer in suitable if offer.gpus >= plan.gpus_per_node]
    if not enough:
        most = max((offer.gpus for offer in suitable), default=0)
        what = f"no node of {where} has the {plan.gpus_per_node} GPUs planned for each; the most is {most}"
        yield Finding("gres", "error", what, f"--set cluster.gpus_per_node={most}")
    elif _most_nodes(enough) < plan.nodes:
        what = f"{where} has {_most_nodes(enough)} nodes with {plan.gpus_per_node} GPUs, {plan.nodes} are planned"
        yield Finding("nodes", "error", what, f"--set cluster.nodes={_most_nodes(enough)}")
    asked, longest = minutes_of(context.config.cluster.time), max((offer.minutes for offer in suitable), default=0)
    if asked > longest:
        what = f"cluster.time: {context.config.cluster.time} is more than {where} gives, {longest / 60:,.4g} h"
        yield Finding("time-limit", "error", what, f"--set cluster.time={_slurm_time(longest)}")


def _most_nodes(offers: Sequence[Offer]) -> int:
    """The most nodes of a single partition: a job takes all its nodes from one."""
    counts: dict[str, int] = {}
    for offer in offers:
        counts[offer.partition] = counts.get(offer.partition, 0) + offer.nodes
    return max(counts.values())


def _slurm_time(minutes: float) -> str:
    return f"{int(minutes) // 60}:{int(minutes) % 60:02}:00"
