"""`grpo-dist status`: the state of runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from grpo_dist.cli.options import console, json_option


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
    found = [status_of(path, jobs) for path in dict.fromkeys(paths)]
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in found], indent=2, allow_nan=False))
        return
    from grpo_dist.cli.status_view import print_status

    print_status(found, console())
