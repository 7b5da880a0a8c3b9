"""`grpo-dist logs`: what the processes of a run printed."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--follow", "-f", is_flag=True, help="Go on as it grows, from stage to stage, until the run ends.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Which start of the run.  [default: the last]")
@click.option("--stage", metavar="NAME", help="prepare, train, compare, or job: what the batch script printed.")
def logs(run: Path, follow: bool, attempt: int | None, stage: str | None) -> None:
    """Print what the processes of the run in directory RUN printed.

    Without --stage that is the last stage that has begun. Names of files go to standard error.
    """
    from grpo_dist.errors import RunDirectoryError
    from grpo_dist.report.record import is_run, not_a_run
    from grpo_dist.run.directory import RunDirectory
    from grpo_dist.slurm import logs as run_logs
    from grpo_dist.slurm.status import describe_state, is_active

    if not is_run(run):
        raise not_a_run(run)
    directory, which = RunDirectory(run), run_logs.LogFilter(attempt, stage)
    log = run_logs.find(directory, which)
    if log is None and not (follow and is_active(run)):
        raise RunDirectoryError(
            f"{run}: nothing has been written yet", hint=f"grpo-dist status {shlex.quote(str(run))}"
        )
    shown = None
    try:
        pieces = (
            run_logs.follow(directory, which, lambda: is_active(run))
            if follow
            else ((log, piece) for piece in run_logs.whole(log))
        )
        for path, piece in pieces:
            if path != shown:
                click.echo(f"==> {path} <==", err=True)
                shown = path
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        return  # the way to stop following
    if follow:
        click.echo(f"{run}: {describe_state(run)}", err=True)
