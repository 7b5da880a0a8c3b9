"""What a node runs for each part of a run, and in which environment."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.cluster.devices import allocator_environment, device_environment
from grpo_dist.cluster.network import interface_of
from grpo_dist.cluster.part import Command
from grpo_dist.cluster.stages import QUIET, Machine, stages
from grpo_dist.cluster.trackers import tracker_environment
from grpo_dist.config import load_config
from grpo_dist.plan import LaunchPlan
from grpo_dist.run_directory import ATTEMPT_VARIABLE, RunDirectory

INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Nothing is fetched in a job: compute nodes often cannot, and then libraries wait and try again for minutes."""


@dataclass(frozen=True)
class Place:
    """Where a part runs."""

    rank: int
    """Among the nodes that train."""
    main_address: str
    main_port: int
    here: str
    """This node's address on the way to the others."""


@dataclass(frozen=True)
class Commands:
    """Of one node; the plan is read when a part is started, which is after the preflight has compared it."""

    run: RunDirectory
    attempt: Path
    node: int

    def command(self, name: str, place: Place) -> Command:
        """
        Raises:
            GrpoDistError: configuration or plan cannot be read, or do not fit this node.
        """
        config = load_config(self.run.config)
        plan = LaunchPlan.from_json(self.run.plan.read_text(encoding="utf-8"))
        several = plan.topology.trainer_nodes > 1
        machine = Machine(place.rank, place.main_address, place.main_port) if several else None
        env = {**os.environ, **QUIET, **tracker_environment(config.tracking, self.run, os.environ)}
        env |= {name: value for name, value in OFFLINE.items() if name not in os.environ}
        env |= self._network(plan, place) | {ATTEMPT_VARIABLE: str(self.attempt)}
        if name == "serve":
            argv = (sys.executable, "-m", "grpo_dist", "serve", str(self.run.path))
            argv += ("--node", str(self.node), "--host", place.here)
            return Command(name, argv, env, self._log(name), heeds_sigterm=True)
        if name == "report":
            argv = (sys.executable, "-m", "grpo_dist", "report", str(self.run.path))
            return Command(name, argv, env, self._log(name))
        stage = next(stage for stage in stages(self.run, plan, config, machine) if stage.name == name)
        env |= device_environment(plan.topology, env, alone=stage.alone)
        env |= allocator_environment(config, plan.topology, env)
        return Command(name, stage.argv, env, self._log(name))

    def _log(self, name: str) -> Path:
        return self.attempt / (f"{name}.log" if self.node == 0 else f"{name}-node{self.node}.log")

    def _network(self, plan: LaunchPlan, place: Place) -> dict[str, str]:
        """The interface that leads to the other nodes, unless the site has pinned one."""
        if plan.topology.nodes == 1:
            return {}
        interface = interface_of(place.here)
        pinned = {name: interface for name in INTERFACE_VARIABLES if interface and name not in os.environ}
        return pinned if "VLLM_HOST_IP" in os.environ else {**pinned, "VLLM_HOST_IP": place.here}
