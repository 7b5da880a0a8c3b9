"""The Slurm script of a run: it plans for its allocation, starts one supervisor per node, and asks to run again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.config.local_paths import local_paths, with_absolute_paths
from grpo_dist.errors import PlanError
from grpo_dist.plan import LaunchPlan
from grpo_dist.render.container import in_container
from grpo_dist.render.node_setup import setup_lines
from grpo_dist.render.shell import Shell, shell_script

CONFIG_FILE = "config.yaml"
COMPARISON_TIME = "00:15:00"

PLANNED = {
    "nodes": "cluster.nodes",
    "N": "cluster.nodes",
    "gpus-per-node": "cluster.gpus_per_node",
    "gpus": "cluster.gpus_per_node",
    "G": "cluster.gpus_per_node",
    "gpus-per-task": "cluster.gpus_per_node",
    "cpus-per-task": "cluster.cpus_per_gpu",
    "c": "cluster.cpus_per_gpu",
    "time": "cluster.time",
    "t": "cluster.time",
    "partition": "cluster.partition",
    "p": "cluster.partition",
    "account": "cluster.account",
    "A": "cluster.account",
    "qos": "cluster.qos",
    "q": "cluster.qos",
    "signal": "cluster.signal_seconds",
    "constraint": "cluster.constraint",
    "C": "cluster.constraint",
}
"""sbatch's option → the setting that decides it."""

UNFIT = {
    "ntasks": "a job runs one task per node",
    "n": "a job runs one task per node",
    "ntasks-per-node": "a job runs one task per node",
    "array": "the jobs of an array would share one run directory",
    "a": "the jobs of an array would share one run directory",
    "wrap": "the job is the script",
}
"""sbatch's option → why it cannot be given."""


def job_script(config: RunConfig, plan: LaunchPlan) -> str:
    """The script in a run directory; it is given that as its working directory (`sbatch --chdir`).

    Raises:
        PlanError: an option of cluster.sbatch is none, or decides what the plan decides.
    """
    usage = (
        "Written by `grpo-dist render`. With RUN the directory of this script, on a file system all nodes see:",
        "",
        "  sbatch --chdir=RUN RUN/job.sh",
        "",
        "cluster.setup is done in the directory sbatch is called from.",
    )
    return _script(config, plan, usage, [CONFIG_FILE, "--output", "."], local_paths(config))


def any_job_script(config: RunConfig, plan: LaunchPlan, config_path: str, script_path: str) -> str:
    """A script for any configuration and allocation; `config_path` when it is given none.

    Raises:
        PlanError: as `job_script`.
    """
    usage = (
        "Written by `grpo-dist render`; the options above are for the configuration it takes when none is given.",
        "",
        f"  sbatch {shlex.quote(script_path)}",
        f"  sbatch --nodes=4 {shlex.quote(script_path)} CONFIG --set grpo.num_generations=32 --output RUN",
        "",
        "Without --output the run directory is runs/NAME-OF-CONFIG-JOBID below the directory sbatch is called from.",
    )
    return _script(config, plan, usage, [config_path], [])


def comparison_script(config: RunConfig) -> str:
    """A script that compares the runs of the directory it is given as its working directory, on one CPU."""
    cluster = with_absolute_paths(config).cluster
    options = {**_site(config), "nodes": 1, "ntasks": 1, "time": COMPARISON_TIME, "output": "compare-%j.out"}
    return shell_script(
        "compare.sh.jinja",
        options=_stated(options),
        setup=[Shell(line) for line in setup_lines(cluster)],
        container=in_container(cluster.container, [], gpus=False),
    )


def _script(
    config: RunConfig, plan: LaunchPlan, usage: Sequence[str], arguments: Sequence[str], paths: Sequence[str]
) -> str:
    container = with_absolute_paths(config).cluster.container
    return shell_script(
        "job.sh.jinja",
        container=in_container(container, paths, gpus=plan.topology.gpus_per_node > 0),
        options=sbatch_options(config, plan),
        usage=[Shell(f" {line}".rstrip()) for line in usage],
        setup=[Shell(line) for line in setup_lines(config.cluster)],
        arguments=Shell(shlex.join(arguments)),
    )


def sbatch_options(config: RunConfig, plan: LaunchPlan) -> list[str]:
    """What stands in the `#SBATCH` lines, unquoted.

    Idle GPUs are not asked for. A task's CPUs are cluster.cpus_per_gpu for each GPU, or each process on CPU.

    Raises:
        PlanError: see `job_script`.
    """
    cluster, where = config.cluster, plan.topology
    # Replicas take the last GPUs of a node, so that with them all are asked for.
    gpus = where.gpus_per_node if where.replicas else len(where.trainer_gpus)
    processes = where.num_processes // where.trainer_nodes
    options = {
        "job-name": _job_name(config),
        "nodes": where.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_gpu * (gpus or processes),
        "gpus-per-node": gpus or None,
        "time": cluster.time,
        **_site(config),
        "output": "slurm-%j.out",
        "open-mode": "append",
        "signal": f"B:USR2@{cluster.signal_seconds}",
    }
    return [*_stated(options), "--requeue", *(_one_line(_further(option)) for option in cluster.sbatch)]


def _site(config: RunConfig) -> dict[str, Any]:
    """Where a site wants jobs to be."""
    cluster = config.cluster
    names = ("partition", "account", "qos", "constraint")
    return {name: getattr(cluster, name) for name in names}


def _stated(options: Mapping[str, Any]) -> list[str]:
    return [_one_line(f"--{name}={value}") for name, value in options.items() if value is not None]


def _job_name(config: RunConfig) -> str:
    model = config.model.name_or_path.rstrip("/").rpartition("/")[2]
    return "grpo-" + re.sub(r"[^A-Za-z0-9._-]+", "-", model)


def _further(option: str) -> str:
    """One of cluster.sbatch, held against what the plan decides."""
    name = re.match(r"--([a-z][a-z-]*)(?==|$)|-([A-Za-z])", option)
    if name is None:
        raise PlanError(f"cluster.sbatch: {option!r} is no option", hint="write each as sbatch takes it: --mem=0")
    spelled = name[1] or name[2]
    if spelled in PLANNED:
        raise PlanError(f"cluster.sbatch: {option} is the plan's to say", hint=f"set {PLANNED[spelled]} instead")
    if spelled in UNFIT:
        raise PlanError(f"cluster.sbatch: {option} cannot be given: {UNFIT[spelled]}", hint="remove it")
    return option


def _one_line(option: str) -> str:
    """A line break would end the comment that `#SBATCH` is for bash, and run the rest."""
    if not option.isprintable():
        raise PlanError(f"cluster: {option!r} holds a character that cannot be printed", hint="remove it")
    return option
