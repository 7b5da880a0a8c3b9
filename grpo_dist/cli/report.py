"""`grpo-dist report`: the results of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grpo_dist.cli.options import console, each_readable, json_option, readable

if TYPE_CHECKING:
    from grpo_dist.report.record import RunRecord


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@json_option
def report(runs: tuple[Path, ...], as_json: bool) -> None:
    """Show the results of the run in directory RUN.

    A run that is still going on or was stopped is shown up to its last step. Writes RUN/report.html too.

    Several runs, or a directory with runs in it, for example a sweep's, are shown side by side: the settings in
    which they differ, and what each achieved. Of a sweep DIR/report.html is written too.
    """
    from grpo_dist.report.record import is_run, is_sweep, read_run, runs_below
    from grpo_dist.run.directory import RunDirectory

    if len(runs) == 1 and (is_run(runs[0]) or not runs[0].is_dir()):
        return _one(read_run(runs[0]), as_json)
    paths = dict.fromkeys(path for run in runs for path in runs_below(run))
    records = each_readable(_checked, paths)
    _several(records, as_json, RunDirectory(runs[0]).report if len(runs) == 1 and is_sweep(runs[0]) else None)


def _checked(path: Path) -> RunRecord:
    """The record, whose values are of the kinds that tables need."""
    from grpo_dist.report.record import read_run
    from grpo_dist.report.summary import summary

    record = read_run(path)
    summary(record)
    return record


def _one(record: RunRecord, as_json: bool) -> None:
    from grpo_dist.report.html import write_html
    from grpo_dist.report.summary import summary
    from grpo_dist.report.terminal import print_summary
    from grpo_dist.run.directory import RunDirectory

    with readable(record.path):
        page = _written(lambda: write_html(record), RunDirectory(record.path).report)
        if as_json:
            click.echo(json.dumps(summary(record), indent=2, allow_nan=False))
            return
        print_summary(record, console(wide=False))
    if page:
        click.echo(page)


def _written(write: Callable[[], object], page: Path) -> Path | None:
    """The page, if it can be written: somebody else's run is shown on the terminal alone."""
    try:
        write()
    except OSError as error:
        click.echo(f"warning: {page} cannot be written ({error.strerror}); the run is shown here alone", err=True)
        return None
    return page


def _several(records: list[RunRecord], as_json: bool, page: Path | None) -> None:
    from grpo_dist.report.terminal import print_several, rows, write_several

    compared = rows(records)
    if page:
        target = page
        page = _written(lambda: write_several(compared, target), target)
    if as_json:
        click.echo(json.dumps(compared, indent=2, allow_nan=False))
        return
    print_several(compared, console())
    if page:
        click.echo(page)
