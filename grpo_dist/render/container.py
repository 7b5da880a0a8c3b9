"""A job whose processes run in a container: the pieces of its script that start them there.

The batch script itself runs outside. `inside` starts what it wants of Python, and `${container[@]}` stands between
srun's options and what each node runs. Both runtimes leave the host's network, processes, /dev/shm and environment as
they are; pyxis lets variables of the image win over the job's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from grpo_dist.config.cluster import ContainerSection
from grpo_dist.errors import PlanError
from grpo_dist.render.shell import Shell, shell_script

AGAIN_FILE = "again.sh"
"""In the directory of an attempt: what asks Slurm to run the job once more, where its programs are out of reach."""


@dataclass(frozen=True)
class Runtime:
    """Shell code that differs between the programs that start containers."""

    unfit: str
    """Characters no path of a mount may have."""
    space: str
    """How a space in such a path is written."""
    name: str
    """The path `$1`, written so."""
    words: str
    """What starts a command in the image {image} with `$mounts`, after srun's options or as a command of its own."""
    step: str
    """What has to come before these where the batch script itself starts something."""


RUNTIMES = {
    "pyxis": Runtime(
        # It writes the mounts as lines of an fstab into a shell script of enroot's.
        unfit=',:"$`\\',
        space="\\040",
        name='"${1// /\\\\040}"',
        # Named, an image is unpacked once for all steps of the job; the last may have little time left.
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
  echo "Error: $run lies in the container alone: choose a directory that cluster.container.mounts has" >&2
  exit 2
}
"""
CLOSE = 'python -m grpo_dist.cluster.job close "$run" "$attempt" "$code"'
CLOSED_OUTSIDE = f"""\
inside {CLOSE}
code=$?
[ ! -e "$attempt/{AGAIN_FILE}" ] || bash "$attempt/{AGAIN_FILE}"
exit "$code"
"""
NOTHING, CLOSED = Shell(""), Shell(f"exec {CLOSE}\n")


@dataclass(frozen=True)
class InContainer:
    """Pieces of a job script."""

    before: Shell = NOTHING
    """Lines before anything is started."""
    inside: Shell = NOTHING
    """Words before a command of the batch script."""
    opened: Shell = NOTHING
    """Lines as soon as `$run` is known."""
    command: Shell = NOTHING
    """Words between srun's options and its command."""
    close: Shell = CLOSED
    """The last lines."""


def in_container(container: ContainerSection | None, paths: Sequence[str], *, gpus: bool) -> InContainer:
    """How a job script starts processes in the container, or without one.

    Args:
        paths: what has to be seen under its own name besides the run, the directory of submission and the caches.
        gpus: whether there are any; pyxis gives a task its own by itself.

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
        Shell(before), Shell("inside "), Shell(OPENED), Shell('"${container[@]}" '), Shell(CLOSED_OUTSIDE)
    )


def check_mountable(container: ContainerSection, path: str) -> None:
    """
    Raises:
        PlanError: the runtime cannot mount a path with such a character.
    """
    unfit = RUNTIMES[container.runtime].unfit
    if found := next((character for character in path if character in unfit), None):
        raise PlanError(
            f"{path}: {container.runtime} cannot mount a path with {found} in it",
            hint=f"choose a path without any of {' '.join(unfit)}",
        )
