"""The Slurm script of a run: one task per node, which starts that node's training processes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError
from grpo_dist.plan import LaunchPlan
from grpo_dist.render.accelerate import DEEPSPEED_FILE, is_deepspeed
from grpo_dist.render.node_setup import setup_lines

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


@dataclass(frozen=True)
class Shell:
    """Text that is shell code already and goes into the script as it is."""

    code: str


def can_run_as_job(plan: LaunchPlan) -> bool:
    """Whether the stages of this version can run the plan: they generate with Transformers.

    Nothing should reach the queue that cannot run, so plans with vLLM get no script.
    """
    return plan.backend == "transformers"


def job_script(config: RunConfig, plan: LaunchPlan) -> str:
    """The script for sbatch; it is given its run directory as the working directory (`sbatch --chdir`).

    Raises:
        PlanError: an option of cluster.sbatch is none, or decides what the plan decides.
    """
    return _TEMPLATES.get_template("job.sh.jinja").render(
        options=sbatch_options(config, plan),
        nodes=plan.topology.trainer_nodes,
        setup=[Shell(line) for line in setup_lines(config.cluster)],
        environment=_environment(config, plan),
        deepspeed_files=[DEEPSPEED_FILE] if is_deepspeed(plan) else [],
        afterwards=[("compare", "comparison.json", "grpo_dist.training.compare")] if config.evaluation.enabled else [],
    )


def sbatch_options(config: RunConfig, plan: LaunchPlan) -> list[str]:
    """What stands in the `#SBATCH` lines, unquoted.

    Idle GPUs and nodes are not asked for. A task's CPUs are cluster.cpus_per_gpu for each of its processes.

    Raises:
        PlanError: see `job_script`.
    """
    cluster, where = config.cluster, plan.topology
    processes = where.num_processes // where.trainer_nodes
    options = {
        "job-name": _job_name(config),
        "nodes": where.trainer_nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_gpu * processes,
        "gpus-per-node": len(where.trainer_gpus) or None,
        "time": cluster.time,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "output": "slurm-%j.out",
        "open-mode": "append",
    }
    stated = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [_one_line(option) for option in [*stated, "--requeue", *map(_further, cluster.sbatch)]]


def _environment(config: RunConfig, plan: LaunchPlan) -> Iterator[tuple[Shell, str]]:
    """Variables of the training processes, as `grpo-dist run` sets them."""
    values = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if plan.topology.device == "cpu":
        values |= {
            "CUDA_VISIBLE_DEVICES": "",
            "ACCELERATE_TORCH_DEVICE": "cpu",
            "OMP_NUM_THREADS": str(config.cluster.cpus_per_gpu),
        }
    return ((Shell(name), value) for name, value in values.items())


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


def _hole(value: Any) -> str:
    """Every value that enters the template is quoted for the shell; sbatch reads the same quotes in its own lines."""
    return value.code if isinstance(value, Shell) else shlex.quote(str(value))


_TEMPLATES = Environment(
    loader=PackageLoader("grpo_dist.render"),
    undefined=StrictUndefined,
    finalize=_hole,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)
