"""`grpo-dist cancel`: end the job of a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def cancel(run: Path) -> None:
    """End the job of a run, or all jobs of a sweep.

    RUN is a run directory, or a sweep's. Prints the job ids.

    What the run has done stays; `grpo-dist submit … --resume` continues it.
    """
    from grpo_dist.slurm.client import cancel as cancel_job
    from grpo_dist.slurm.status import active_jobs

    for job_id in active_jobs(run):
        cancel_job(job_id)
        click.echo(job_id)
