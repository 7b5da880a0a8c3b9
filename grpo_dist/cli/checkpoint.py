"""`grpo-dist checkpoint`: ask a running run to save and stop."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
def checkpoint(run: Path) -> None:
    """Ask the training in RUN to save and stop at its next step.

    A Slurm job then goes back into the queue and continues from there; `grpo-dist run` ends with exit code 75.
    """
    from grpo_dist.errors import RunDirectoryError
    from grpo_dist.run.control import Why, request_stop
    from grpo_dist.run.directory import RunDirectory

    directory = RunDirectory(run.absolute())
    if not directory.exists():
        raise RunDirectoryError(f"{run}: there is no run", hint="name a run directory, as runs/NAME")
    if directory.is_idle():
        raise RunDirectoryError(f"{run}: no run is going on there", hint="it is continued as it was started")
    request_stop(directory, Why.ASKED)
    click.echo(f"{run}: training saves and stops at its next step", err=True)
