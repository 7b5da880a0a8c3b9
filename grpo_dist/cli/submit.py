"""`grpo-dist submit`: submit a run as a Slurm job."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from grpo_dist.cli.options import Directory, nodes_option, overrides_option, with_nodes


@click.command()
@click.argument("config")
@nodes_option
@overrides_option
@click.option("--output", type=Directory(), metavar="DIR", help="Run directory.  [default: runs/NAME-OF-CONFIG]")
@click.option("--resume", is_flag=True, help="Continue the run in the run directory, or start it if there is none.")
@click.option("--dry-run", is_flag=True, help="Print the job script; make and submit nothing.")
@click.option("--test-only", is_flag=True, help="Ask Slurm when and where it would start; make and submit nothing.")
def submit(
    config: str,
    nodes: int | None,
    overrides: tuple[str, ...],
    output: Path | None,
    resume: bool,
    dry_run: bool,
    test_only: bool,
) -> None:
    """Queue a run with Slurm and print its job id.

    What the configuration's cluster: does not state is taken from the site's settings: ~/.config/grpo-dist/site.yaml,
    or the file that GRPO_DIST_SITE names. CONFIG is planned first; what cannot run does not reach the queue.
    """
    from grpo_dist.config import load_config, load_site
    from grpo_dist.run.directory import RunDirectory
    from grpo_dist.slurm import client
    from grpo_dist.slurm.submit import planned, submit_run

    path = output or Path("runs") / Path(config).stem
    begun = RunDirectory(path).prepared.exists()
    what = planned(load_config(config, with_nodes(overrides, nodes), load_site()), begun=begun)
    for warning in what.warnings:
        click.echo(f"warning: {warning}", err=True)
    if dry_run:
        click.echo(what.script, nl=False)
        return
    if test_only:
        click.echo(client.test_only(what.script))
        return
    job_id = submit_run(RunDirectory(path.absolute()), what, resume=resume)
    click.echo(job_id)
    if why := client.never_starts(what.script):
        click.echo(f"warning: it is queued, and may wait forever: {why}", err=True)
    where = shlex.quote(str(path))
    click.echo(f"run directory: {path}; logs: {path / 'logs'} and {path / f'slurm-{job_id}.out'}", err=True)
    click.echo(f"follow it: grpo-dist logs {where} --follow", err=True)
    click.echo(f"see how far it is: grpo-dist status {where}; end it: grpo-dist cancel {where}", err=True)
