"""Shell lines of a job script that make a node ready before anything of a run is started there."""

from __future__ import annotations

import re
import shlex

from grpo_dist.config.cluster import ClusterSection

ALL_NODES = '${SLURM_HET_SIZE:+--het-group="0-$((SLURM_HET_SIZE - 1))"} --ntasks-per-node=1'
MAKE_SCRATCH = f'srun {ALL_NODES} --export=ALL mkdir -p "$TMPDIR"'
"""On every node of the job."""


def setup_lines(cluster: ClusterSection) -> list[str]:
    """cluster.setup, after what pins the network interface and moves temporary files to the node's own disk."""
    lines = []
    if cluster.network_interface:
        name = shlex.quote(cluster.network_interface)
        lines.append(f"export NCCL_SOCKET_IFNAME={name} GLOO_SOCKET_IFNAME={name}")
    if cluster.scratch:
        lines += [f"export TMPDIR={with_variables(cluster.scratch)}", MAKE_SCRATCH]
    return [*lines, *cluster.setup]


def with_variables(text: str) -> str:
    """The text as one word of shell code in which `$NAME` and `${NAME}` are looked up on the node, and nothing else."""
    parts = re.split(r"(\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\}))", text)
    return "".join(f'"{part}"' if index % 2 else shlex.quote(part) for index, part in enumerate(parts) if part)
