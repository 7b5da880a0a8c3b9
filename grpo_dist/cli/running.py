"""Commands about a run in progress: `status`, `logs`, `cancel` and `checkpoint`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from grpo_dist.cli.options import console, each_readable, json_option


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN]...")
@json_option
def status(runs: tuple[Path, ...], as_json: bool) -> None:
    """Show how far runs are: in the queue, and in their steps.

    A RUN is a run directory, or a directory with runs in it, for example a sweep's; without any, runs/. Slurm is asked
    where there is one; runs of this machine need none.
    """
    from grpo_dist.errors import SlurmError
    from grpo_dist.report.record import runs_below
    from grpo_dist.slurm.status import queue, status_of

    paths = [found for run in runs or (Path("runs"),) for found in runs_below(run)]
    try:
        jobs = queue()
    except SlurmError as error:
        click.echo(f"warning: the queue is not known: {error}", err=True)
        jobs = []
    found = each_readable(lambda path: status_of(path, jobs), dict.fromkeys(paths))
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in found], indent=2, allow_nan=False))
        return
    from grpo_dist.cli.views import print_status

    print_status(found, console())


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--follow", "-f", is_flag=True, help="Continue as it grows, from stage to stage, until the run ends.")
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
    from grpo_dist.text import PrintableLog

    if not is_run(run):
        raise not_a_run(run)
    directory, which = RunDirectory(run), run_logs.LogFilter(attempt, stage)
    log = run_logs.find(directory, which)
    if log is None and not (follow and is_active(run)):
        raise RunDirectoryError(
            f"{run}: nothing has been written yet ({describe_state(run)})",
            hint=f"grpo-dist status {shlex.quote(str(run))}",
        )
    shown, clean = None, PrintableLog()
    try:
        pieces = (
            run_logs.follow(directory, which, lambda: is_active(run))
            if follow
            else ((log, piece) for piece in run_logs.whole(log))
        )
        for path, piece in pieces:
            if path != shown:
                click.echo(clean.text(b"", last=True), nl=False)
                click.echo(f"==> {path} <==", err=True)
                shown = path
            click.echo(clean.text(piece), nl=False)
    except KeyboardInterrupt:
        return  # the way to stop following
    finally:
        click.echo(clean.text(b"", last=True), nl=False)
    if follow or describe_state(run).startswith("failed"):
        click.echo(f"{run}: {describe_state(run)}", err=True)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def cancel(run: Path) -> None:
    """End the job of a run, or all jobs of a sweep.

    RUN is a run directory, or a sweep's. Prints the job ids.

    What the run has done is kept; `grpo-dist submit … --resume` continues it.
    """
    from grpo_dist.slurm.client import cancel as cancel_job
    from grpo_dist.slurm.status import active_jobs

    for job_id in active_jobs(run, each_readable):
        cancel_job(job_id)
        click.echo(job_id)


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
    if directory.adapter.exists():
        click.echo(f"{run}: training has ended and is saved; what follows, such as the comparison, goes on", err=True)
        return
    request_stop(directory, Why.ASKED)
    click.echo(f"{run}: training saves and stops at its next step", err=True)
