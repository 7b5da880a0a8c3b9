"""The rollout servers of one node of a prepared run."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grpo_dist.config import RunConfig, load_config
from grpo_dist.config.base import EMBEDDED
from grpo_dist.errors import PlanError, RunDirectoryError
from grpo_dist.inference.registry import clear, lock_of
from grpo_dist.inference.server import server_settings
from grpo_dist.inference.supervisor import NodeSettings, Supervisor, replicas_of_node
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.launch import read_plan
from grpo_dist.run.directory import RunDirectory, try_lock


@contextmanager
def supervisor_of(path: Path, node: int, host: str, logs: Path, say: Callable[[str], None]) -> Iterator[Supervisor]:
    """The supervisor of the node's replicas, not started yet. A lock keeps out any other supervisor of this node.

    Args:
        path: the run directory.
        node: number of the node in the plan.
        host: address at which the trainers reach this node.
        logs: directory for the servers' logs.

    Raises:
        RunDirectoryError: the run is not prepared, or its servers on this node are running already.
        PlanError: the plan has no servers for this node.
    """
    run = RunDirectory(path.absolute())
    config, plan = _prepared(run, path)
    replicas = replicas_of_node(plan.topology, node)
    if not replicas:
        raise _no_replicas(plan, node)
    embedded = config.model.name_or_path == EMBEDDED
    model = str(run.model) if embedded else config.model.name_or_path
    settings = server_settings(config, plan, model, str(run.tokenizer))
    node_settings = NodeSettings(
        topology=plan.topology,
        registry=run.replicas,
        logs=logs,
        host=host,
        timeouts=config.rollout.timeouts,
        max_restarts=config.rollout.max_restarts,
    )
    run.replicas.mkdir(exist_ok=True)
    with _locked(lock_of(run.replicas, node), path):
        if all(replica.node == node for replica in plan.topology.replicas):  # with others the coordinator does it
            clear(run.replicas)
        yield Supervisor(settings, replicas, node_settings, say=say)


def _prepared(run: RunDirectory, path: Path) -> tuple[RunConfig, LaunchPlan]:
    if not run.exists() or not run.plan.is_file():
        raise RunDirectoryError(
            f"{path}: there is no run (config.yaml and plan.json are missing)",
            hint=f"make one: grpo-dist render CONFIG --output {path}",
        )
    config = load_config(run.config)
    embedded = config.model.name_or_path == EMBEDDED
    required = (run.tokenizer, run.model) if embedded else (run.tokenizer,)
    if missing := [path.name for path in required if not path.exists()]:
        raise RunDirectoryError(
            f"{path}: the run is not prepared: {' and '.join(missing)} missing",
            hint=f"python -m grpo_dist.training prepare {path}",
        )
    return config, read_plan(run)


def _no_replicas(plan: LaunchPlan, node: int) -> PlanError:
    nodes = sorted({replica.node for replica in plan.topology.replicas})
    if nodes:
        listed = ", ".join(map(str, nodes))
        return PlanError(f"node {node} of this run has no rollout servers", hint=f"--node one of {listed}")
    return PlanError(
        f"this run has no rollout servers: its plan is {plan.topology.mode}",
        hint="plan one with --set rollout.backend=vllm --set rollout.mode=server",
    )


@contextmanager
def _locked(lock: Path, path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel releases it when this process ends."""
    with open(lock, "a+") as handle:
        if not try_lock(handle, fcntl.LOCK_EX):
            raise RunDirectoryError(
                f"{path}: the rollout servers of this node are running", hint="stop them first, or use them"
            )
        yield
