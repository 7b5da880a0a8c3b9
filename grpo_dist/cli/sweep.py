"""`grpo-dist sweep`: submit many runs as one job array."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from grpo_dist.cli.options import Directory, nodes_option, overrides_option, with_nodes


@click.command()
@click.argument("config")
@overrides_option
@nodes_option
@click.option("--output", type=Directory(), metavar="DIR", help="Directory of the runs.  [default: runs/NAME-sweep]")
@click.option("--throttle", type=click.IntRange(1), metavar="N", help="Most runs at a time; all at once if not given.")
@click.option("--dry-run", is_flag=True, help="Print the array's script and name the runs; make and submit nothing.")
def sweep(
    config: str,
    overrides: tuple[str, ...],
    nodes: int | None,
    output: Path | None,
    throttle: int | None,
    dry_run: bool,
) -> None:
    """Queue a run for each combination of values.

    A setting with several values, separated by commas, is varied:

    \b
        grpo-dist sweep configs/tiny-cpu.yaml --set grpo.num_generations=8,16 --set grpo.seed=1,2,3

    is six runs. A list, or text with commas, is written in brackets or quotes. All runs are planned before any is
    submitted; together they are one job array, whose id is printed. When it has ended, a job of its own compares them;
    `grpo-dist report DIR` does so at any time.
    """
    from grpo_dist.config import load_site
    from grpo_dist.slurm.sweep import array_script, submit_sweep, sweep_runs

    found = sweep_runs(config, with_nodes(overrides, nodes), load_site())
    for warning in dict.fromkeys(warning for run in found for warning in run.planned.warnings):
        click.echo(f"warning: {warning}", err=True)
    path = output or Path("runs") / f"{Path(config).stem}-sweep"
    if dry_run:
        click.echo(array_script(found), nl=False)
    else:
        job_id = submit_sweep(path, config, found, throttle)
        click.echo(job_id)
    for run in found:
        click.echo(f"{path / run.name}: {' '.join(run.settings)}", err=True)
    if not dry_run:
        where = shlex.quote(str(path))
        click.echo(f"see how far they are: grpo-dist status {where}; end them: grpo-dist cancel {where}", err=True)
        click.echo(f"compare them: grpo-dist report {where}; {_compared(path, job_id)}", err=True)


def _compared(path: Path, job_id: str) -> str:
    from grpo_dist.errors import SlurmError
    from grpo_dist.slurm.sweep import submit_comparison

    try:
        comparison = submit_comparison(path, job_id)
    except SlurmError as error:
        return f"no job will do it at the end: {error}"
    return f"job {comparison} does it at the end: {path / 'report.html'} and {path / f'compare-{comparison}.out'}"
