"""`grpo-dist report`: what a run came to."""

from __future__ import annotations

import json
from pathlib import Path

import click

from grpo_dist.cli.options import json_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def report(run: Path, as_json: bool) -> None:
    """Show what the run in directory RUN came to.

    A run that is still going on or was stopped is shown as far as it has come. Writes RUN/report.html too.
    """
    from rich.console import Console

    from grpo_dist.report import print_summary, read_run, summary, write_html

    record = read_run(run)
    page = write_html(record)
    if as_json:
        click.echo(json.dumps(summary(record), indent=2, allow_nan=False))
    else:
        print_summary(record, Console())
        click.echo(page)
