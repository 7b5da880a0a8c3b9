"""The Slurm script of a run: it plans for its allocation, starts one agent per node, and requeues the job if needed.

The scripts are rendered from templates, in which every value is quoted unless it is shell code (`Shell`).

If the run uses a container, the batch script itself runs outside of it: `inside` starts its Python steps in the
container, and `${container[@]}`, between srun's options and its command, starts what each node runs. Both runtimes keep
the host's network, processes, /dev/shm and environment; with pyxis, variables of the image override those of the job.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from grpo_dist.config import RunConfig
from grpo_dist.config.cluster import ClusterSection, ContainerSection
from grpo_dist.config.local_paths import local_paths, with_absolute_paths
from grpo_dist.errors import PlanError
from grpo_dist.plan import LaunchPlan
from grpo_dist.run.directory import CONFIG_FILE

ALL_NODES = '${SLURM_HET_SIZE:+--het-group="0-$((SLURM_HET_SIZE - 1))"} --ntasks-per-node=1'
MAKE_SCRATCH = f'srun {ALL_NODES} --export=ALL mkdir -p "$TMPDIR"'
"""On every node of the job."""


def setup_lines(cluster: ClusterSection) -> list[str]:
    """Lines that prepare the node: network interface, scratch directory, then cluster.setup."""
    lines = []
    if cluster.network_interface:
        name = shlex.quote(cluster.network_interface)
        lines.append(f"export NCCL_SOCKET_IFNAME={name} GLOO_SOCKET_IFNAME={name}")
    if cluster.scratch:
        lines += [f"export TMPDIR={with_variables(cluster.scratch)}", MAKE_SCRATCH]
    return [*lines, *cluster.setup]


def with_variables(text: str) -> str:
    """The text as one shell word, in which only `$NAME` and `${NAME}` are expanded, on the node."""
    pieces = re.split(r"(\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\}))", text)
    return "".join(f'"{piece}"' if index % 2 else shlex.quote(piece) for index, piece in enumerate(pieces) if piece)


@dataclass(frozen=True)
class Shell:
    """Shell code, which goes into the script unquoted."""

    code: str


def shell_script(template: str, **values: Any) -> str:
    """A rendered template of templates/."""
    return _TEMPLATES.get_template(template).render(values)


def _quoted(value: Any) -> str:
    """Quoted for the shell; sbatch reads the same quotes in its own lines."""
    return value.code if isinstance(value, Shell) else shlex.quote(str(value))


_TEMPLATES = Environment(
    loader=PackageLoader("grpo_dist.render"),
    undefined=StrictUndefined,
    finalize=_quoted,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


AGAIN_FILE = "again.sh"
"""In the log directory of an attempt: a script that requeues the job, for containers without Slurm's programs."""


@dataclass(frozen=True)
class Runtime:
    """Shell code that differs between the programs that start containers."""

    unfit: str
    """Characters that no mounted path may contain."""
    space: str
    """How a space in a mounted path is written."""
    name: str
    """Shell code for the path `$1`, with spaces written that way."""
    words: str
    """Words that start a command in the image {image} with `$mounts`, after srun's options or on their own."""
    step: str
    """What precedes these words when the batch script itself starts something."""


RUNTIMES = {
    "pyxis": Runtime(
        # pyxis writes the mounts as fstab lines into a shell script of enroot.
        unfit=',:"$`\\',
        space="\\040",
        name='"${1// /\\\\040}"',
        # With a name, the image is unpacked once for all steps of the job; the last step may have little time.
        words='--container-image={image} --container-name="grpo-dist-$SLURM_JOB_ID" --no-container-entrypoint '
        '--container-mounts="$mounts" --container-workdir="$work"',
        step="srun --overlap --nodes=1 --ntasks=1 --export=ALL ",
    ),
    "apptainer": Runtime(
        unfit=",:",
        space=" ",
        name='"$1"',
        words='apptainer exec {nv}--pwd "$work" --bind "$mounts" {image}',
        step="",
    ),
}

OPENED = """\
[ -d "$attempt" ] || {
  echo "Error: $run exists only in the container: choose a directory that cluster.container.mounts has" >&2
  exit 2
}
"""
CLOSE = 'python -m grpo_dist.slurm.job close "$run" "$attempt" "$code"'
CLOSED_OUTSIDE = f"""\
inside {CLOSE}
code=$?
[ ! -e "$attempt/{AGAIN_FILE}" ] || bash "$attempt/{AGAIN_FILE}"
exit "$code"
"""
NO_PYTHON = Shell("python here, $(command -v python || echo none at all), has no grpo_dist")
NO_CONTAINER = Shell("the container does not start here, or its python has no grpo_dist")
SITE_KEYS = Shell("modules, activate or scratch in ~/.config/grpo-dist/site.yaml, or cluster.setup")
"""What makes the environment of a job."""
NOTHING, CLOSED = Shell(""), Shell(f"exec {CLOSE}\n")


@dataclass(frozen=True)
class InContainer:
    """Pieces of a job script."""

    before: Shell = NOTHING
    """Lines before anything is started."""
    inside: Shell = NOTHING
    """Words before a command of the batch script."""
    opened: Shell = NOTHING
    """Lines to run as soon as `$run` is known."""
    command: Shell = NOTHING
    """Words between srun's options and its command."""
    close: Shell = CLOSED
    """The last lines."""
    no_python: Shell = NO_PYTHON
    """What is wrong where the program is not found, within double quotes."""


def in_container(container: ContainerSection | None, paths: Sequence[str], *, gpus: bool) -> InContainer:
    """How a job script starts processes in the container, or without one.

    Args:
        paths: to mount under their own names, besides the run, the submission directory and the caches.
        gpus: whether the job has GPUs; pyxis passes them on by itself.

    Raises:
        PlanError: the runtime cannot mount one of the paths.
    """
    if container is None:
        return InContainer()
    for path in paths:
        check_mountable(container, path)
    runtime = RUNTIMES[container.runtime]
    before = shell_script(
        "container.sh.jinja",
        mounts=",".join(container.mounts).replace(" ", runtime.space),
        unfit=Shell(re.sub(r'(["$`\\])', r"\\\1", runtime.unfit)),
        name=Shell(runtime.name),
        paths=paths,
        words=Shell(runtime.words.format(image=shlex.quote(container.image), nv="--nv " if gpus else "")),
        step=Shell(runtime.step),
    )
    return InContainer(
        Shell(before), Shell("inside "), Shell(OPENED), Shell('"${container[@]}" '), Shell(CLOSED_OUTSIDE), NO_CONTAINER
    )


def check_mountable(container: ContainerSection, path: str) -> None:
    """Check that the runtime can mount a path.

    Raises:
        PlanError: it cannot mount a path with one of its characters.
    """
    unfit = RUNTIMES[container.runtime].unfit
    if found := next((character for character in path if character in unfit), None):
        raise PlanError(
            f"{path}: {container.runtime} cannot mount a path with {found} in it",
            hint=f"choose a path without any of {' '.join(unfit)}",
        )


COMPARISON_TIME = "00:15:00"

GPUS_PLACE = "GPUS"
"""In an entry of cluster.sbatch that asks for GPUs: their number per node."""
GPU_REQUEST = (
    r"--(?:gpus-per-node=|gres=(?:.*,)?gpu(?=[:,(]|$):?)(?:[^:,(]+:(?=\d|GPUS)|(?!GPUS)[A-Za-z][^:,(]*(?=[,(]|$))?"
    r"(?P<count>\d+|GPUS)?(?=[,(]|$)"
)
OURS = {
    "gpus-per-node": GPU_REQUEST,
    "mem": r"--mem(-per-cpu|-per-gpu)?=",
    "output": r"(--output=|-o)",
    "open-mode": r"--open-mode=",
    "job-name": r"(--job-name=|-J)",
}
"""Option of ours → which entry of cluster.sbatch takes its place: each is asked for once."""

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
"""sbatch option → the setting that determines it."""

UNFIT = {
    "ntasks": "a job runs one task per node",
    "n": "a job runs one task per node",
    "ntasks-per-node": "a job runs one task per node",
    "array": "the jobs of an array would share one run directory",
    "a": "the jobs of an array would share one run directory",
    "wrap": "the job is the script",
    "no-requeue": "a job puts itself back in the queue before its time limit and after a preemption",
    "chdir": "relative paths of the configuration would mean other files",
    "D": "relative paths of the configuration would mean other files",
}
"""sbatch option → why it cannot be used."""
UNFIT_VALUES = {
    r"--export=(NONE|NIL)\b": "the job would have no PATH, and no Python to run",
    r"(--output=|-o ?)/dev/null$": "`grpo-dist logs` shows that file, and the reason of a failure is in it",
}
"""Pattern of a whole sbatch option → why it cannot be used."""


def job_script(config: RunConfig, plan: LaunchPlan) -> str:
    """The script in a run directory, to be submitted with `sbatch --chdir` of that directory.

    Raises:
        PlanError: an entry of cluster.sbatch is no option, or sets what the plan determines.
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
    """A script for any configuration and allocation; without an argument it uses `config_path`.

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
    """A script that compares the runs in its working directory, on one CPU."""
    cluster = with_absolute_paths(config).cluster
    options = {**_cluster_options(config), "nodes": 1, "ntasks": 1, "time": COMPARISON_TIME, "output": "compare-%j.out"}
    return shell_script(
        "compare.sh.jinja",
        options=_option_lines(options),
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
        site_keys=SITE_KEYS,
        arguments=Shell(shlex.join(arguments)),
    )


def sbatch_options(config: RunConfig, plan: LaunchPlan) -> list[str]:
    """The options of the `#SBATCH` lines, unquoted.

    Idle GPUs are not requested. A task's CPUs are cluster.cpus_per_gpu for each GPU, or each process on CPU.

    Raises:
        PlanError: see `job_script`.
    """
    cluster, where = config.cluster, plan.topology
    # Replicas use the last GPUs of a node, so with replicas all GPUs are requested.
    gpus = where.gpus_per_node if where.replicas else len(where.trainer_gpus)
    processes = where.num_processes // where.trainer_nodes
    extra = [_checked_option(option, gpus) for option in cluster.sbatch]
    options = {
        "job-name": _job_name(config),
        "nodes": where.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_gpu * (gpus or processes),
        "gpus-per-node": gpus or None,
        "mem": 0,
        "time": cluster.time,
        **_cluster_options(config),
        "output": "slurm-%j.out",
        "open-mode": "append",
        "signal": f"B:USR2@{cluster.signal_seconds}",
    }
    stated = {name for option in extra for name, pattern in OURS.items() if re.match(pattern, option)}
    ours = {name: value for name, value in options.items() if name not in stated}
    return [*_option_lines(ours), "--requeue", *map(_one_line, extra)]


def _cluster_options(config: RunConfig) -> dict[str, Any]:
    """The options that depend on the cluster."""
    cluster = config.cluster
    names = ("partition", "account", "qos", "constraint")
    return {name: getattr(cluster, name) for name in names}


def _option_lines(options: Mapping[str, Any]) -> list[str]:
    return [_one_line(f"--{name}={value}") for name, value in options.items() if value is not None]


def _job_name(config: RunConfig) -> str:
    model = config.model.name_or_path.rstrip("/").rpartition("/")[2]
    return "grpo-" + re.sub(r"[^A-Za-z0-9._-]+", "-", model)


def _checked_option(option: str, gpus: int) -> str:
    """An option of cluster.sbatch, checked against what the plan determines.

    Args:
        gpus: those of a node. GPUs may be asked for in another way, for example by type, but not others.
    """
    if asked := re.match(GPU_REQUEST, option):
        count, rest = asked["count"] or "1", option[asked.end() :]
        if count not in (GPUS_PLACE, str(gpus)):
            general = (
                f"{option[: asked.start('count')]}{GPUS_PLACE}{rest}" if asked["count"] else f"--gres=gpu:{GPUS_PLACE}"
            )
            raise PlanError(
                f"cluster.sbatch: {option} asks for {count} GPUs per node, {gpus} are planned",
                hint=f"set cluster.gpus_per_node instead; {general} asks for as many as are planned",
            )
        return f"{option[: asked.start('count')]}{gpus}{rest}" if count == GPUS_PLACE else option
    name = re.match(r"--([a-z][a-z-]*)(?==|$)|-([A-Za-z])", option)
    if name is None:
        raise PlanError(f"cluster.sbatch: {option!r} is no option", hint="write each as sbatch takes it: --mem=0")
    spelled = name[1] or name[2]
    if spelled in PLANNED:
        raise PlanError(f"cluster.sbatch: {option} is the plan's to say", hint=f"set {PLANNED[spelled]} instead")
    by_value = (why for pattern, why in UNFIT_VALUES.items() if re.match(pattern, option))
    if why := UNFIT.get(spelled) or next(by_value, None):
        raise PlanError(f"cluster.sbatch: {option} cannot be given: {why}", hint="remove it")
    return option


def _one_line(option: str) -> str:
    """Refuse a line break: for bash `#SBATCH` is a comment, and the rest after a line break would be executed."""
    if not option.isprintable():
        raise PlanError(f"cluster: {option!r} holds a character that cannot be printed", hint="remove it")
    return option
