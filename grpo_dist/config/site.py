"""What a site's Slurm and nodes ask of every job: `~/.config/grpo-dist/site.yaml`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from grpo_dist.config.cluster import ContainerSection, TimeLimit
from grpo_dist.config.section import Name, Section

FILE_VARIABLE = "GRPO_DIST_SITE"


class SiteSection(Section):
    """Settings of `cluster:` for all runs of a site; what a configuration states itself wins."""

    partition: Name | None = None
    """Slurm's `--partition`."""
    account: Name | None = None
    """Slurm's `--account`."""
    qos: Name | None = None
    """Slurm's `--qos`."""
    constraint: Name | None = None
    """Slurm's `--constraint`."""
    time: TimeLimit | None = None
    """Slurm's `--time`."""
    sbatch: tuple[Name, ...] = ()
    """Further options of sbatch, one each, e.g. `--mem=0`."""
    modules: tuple[Name, ...] = ()
    """Environment modules to load, in this order."""
    activate: tuple[Name, ...] = ()
    """Shell lines after the modules, e.g. `source ~/grpo/.venv/bin/activate` or `conda activate grpo`."""
    scratch: Name | None = None
    """`cluster.scratch`: where temporary files go on a node."""
    network_interface: Name | None = None
    """`cluster.network_interface`: what the nodes talk over."""
    container: ContainerSection | None = None
    """`cluster.container`: what jobs run in."""

    def cluster_settings(self) -> dict[str, Any]:
        """What the file states, under the names of `cluster:`; modules and activate are its setup."""
        stated = self.model_dump(mode="json", exclude={"modules", "activate"}, exclude_none=True, exclude_unset=True)
        load = [f"module load {shlex.join(self.modules)}"] if self.modules else []
        setup = [*load, *self.activate]
        return {**stated, "setup": setup} if setup else stated


def site_file() -> tuple[Path, bool]:
    """Where the site settings are looked for, and whether GRPO_DIST_SITE names the place."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named), True
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "grpo-dist" / "site.yaml", False


def with_site(data: dict[str, Any], site: SiteSection) -> dict[str, Any]:
    """A configuration's data with the site's settings where its `cluster:` states none; a list is stated whole."""
    cluster = data.get("cluster") or {}
    if not isinstance(cluster, dict):
        return data  # refused as it stands
    return {**data, "cluster": {**site.cluster_settings(), **cluster}}
