"""What starts the processes of a job in a container, as shell code of a job script."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from grpo_dist.config.cluster import ContainerSection


@dataclass(frozen=True)
class InContainer:
    """Two pieces of shell code; both are empty without a container."""

    srun: str
    """Options of srun."""
    command: str
    """What stands before the command that srun runs."""


def in_container(container: ContainerSection | None, visible: Sequence[str], *, gpus: bool) -> InContainer:
    """How srun runs a command in the container.

    Args:
        visible: directories that have to be seen under their own names, as words of shell code: `"$run"`. A path
            with a comma or colon in it is beyond what both runtimes can mount.
        gpus: whether the command needs the node's GPUs. Pyxis gives those of the task by itself.
    """
    if container is None:
        return InContainer("", "")
    mounts = [*(f"{word}:{word}" for word in visible), *map(shlex.quote, container.mounts)]
    image = shlex.quote(container.image)
    if container.runtime == "pyxis":
        return InContainer(f"--container-image={image} --container-mounts={','.join(mounts)}", "")
    bind = "".join(f"--bind {mount} " for mount in mounts)
    return InContainer("", f"apptainer exec {'--nv ' if gpus else ''}{bind}{image}")
