"""`grpo-dist filter`: keep the problems a model can learn from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grpo_dist.cli.options import console, json_option, overrides_option

if TYPE_CHECKING:
    from grpo_dist.config import RunConfig
    from grpo_dist.evaluation.pass_rates import Band, PassRate
    from grpo_dist.run.directory import RunDirectory

WORK = ".work"
"""Suffix of the directory with the answers, after the name of the output file."""


@click.command("filter")
@click.argument("config")
@overrides_option
@click.option("--samples", type=click.IntRange(2), metavar="K", default=8, show_default=True, help="Asks per problem.")
@click.option("--low", type=click.FloatRange(0, 1), metavar="RATE", help="Least pass rate kept.  [default: 1/K]")
@click.option("--high", type=click.FloatRange(0, 1), metavar="RATE", help="Largest pass rate kept.  [default: 1 − 1/K]")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="JSONL or Parquet, by its suffix.  [default: NAME-OF-CONFIG-filtered.jsonl]",
)
@json_option
def filter_problems(
    config: str,
    overrides: tuple[str, ...],
    samples: int,
    low: float | None,
    high: float | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Keep the problems of CONFIG that its model sometimes solves.

    The model answers every training problem K times, sampled as in training; evaluation.scorer judges. If it always
    or never solves a problem, all completions have the same reward and GRPO learns nothing from them. By default only
    such problems are left out. FILE has the original rows, with pass_rate and samples.

    After an interruption, the same command continues where it stopped. The answers stay in FILE.work: another
    band over the same answers costs nothing.
    """
    from grpo_dist.config import load_config
    from grpo_dist.evaluation.pass_rates import overview
    from grpo_dist.launch.commands import as_in_training, pass_rates
    from grpo_dist.launch.process import Interrupted
    from grpo_dist.progress import Terminal
    from grpo_dist.run.directory import RunDirectory

    band = _band(samples, low, high)
    file = output or Path(f"{Path(config).stem}-filtered.jsonl")
    work = RunDirectory(file.absolute().with_name(file.name + WORK))
    _check_output(file, work)
    run_config = as_in_training(load_config(config, overrides), samples)
    try:
        found = pass_rates(run_config, work, Terminal(), command="filter")
    except Interrupted as stop:
        click.echo(f"stopped by {stop}; the same command continues where it stopped", err=True)
        raise click.exceptions.Exit(128 + stop.signum) from stop
    figures = overview(found, band)
    settings = _write(run_config, work, found, band, file)
    if as_json:
        listed = {"file": str(file), "work": str(work.path), **figures, "settings": settings}
        click.echo(json.dumps(listed, indent=2, ensure_ascii=False))
    else:
        _print(_next(config, overrides, settings), run_config, figures, file)


def _band(samples: int, low: float | None, high: float | None) -> Band:
    from grpo_dist.evaluation.pass_rates import Band, default_band

    usual = default_band(samples)
    band = Band(usual.low if low is None else low, usual.high if high is None else high)
    if band.low > band.high:
        raise click.UsageError(f"no pass rate is at least {band.low:g} and at most {band.high:g}: --low above --high")
    return band


def _check_output(file: Path, work: RunDirectory) -> None:
    """Check the name of the output file.

    Raises:
        BadParameter: its suffix is no known format.
        RunDirectoryError: the file exists, and no earlier filter wrote it.
    """
    from grpo_dist.data.filtered import SUFFIXES
    from grpo_dist.errors import RunDirectoryError

    if file.suffix not in SUFFIXES:
        raise click.BadParameter(f"{file}: ends in none of {', '.join(SUFFIXES)}", param_hint="--output")
    if file.exists() and not work.exists():
        raise RunDirectoryError(f"{file}: already exists", hint="choose another place with --output FILE")


def _write(run_config: RunConfig, work: RunDirectory, found: list[PassRate], band: Band, file: Path) -> list[str]:
    """Write the file, and return the settings that make a configuration read it.

    Raises:
        DataError: no problem is within the band; nothing is written.
    """
    from grpo_dist.data.filtered import settings_for, write_filtered
    from grpo_dist.errors import DataError
    from grpo_dist.evaluation.pass_rates import overview

    kept = [(one.row, one.rate) for one in found if band.verdict(one) == "kept"]
    if not kept:
        figures = overview(found, band)
        raise DataError(
            f"none of {len(found):,} problems has a pass rate from {band.low:g} to {band.high:g}: "
            f"{figures['too_hard']:,} below, {figures['too_easy']:,} above",
            hint="a wider band costs nothing now: --low, --high; otherwise see grpo-dist advise --config CONFIG "
            "--samples 8",
        )
    write_filtered(work.source_rows, kept, run_config.evaluation.num_samples, file)
    return settings_for(run_config.data, file)


def _next(config: str, overrides: tuple[str, ...], settings: list[str]) -> str:
    """The command that trains on the filtered file, with what was set here."""
    from grpo_dist.data.filtered import options

    stated = {setting.partition("=")[0].strip(): setting for setting in (*overrides, *settings)}
    standing = Path("runs") / Path(config).stem
    elsewhere = f" --output {shlex.quote(f'{standing}-filtered')}" if standing.exists() else ""
    return f"grpo-dist run {shlex.quote(config)} {options(list(stated.values()))}{elsewhere}"


def _print(command: str, run_config: RunConfig, figures: dict[str, Any], file: Path) -> None:
    from rich.table import Table

    from grpo_dist.report.numbers import percent

    k, total = figures["samples"], figures["problems"]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in (f"right of {k}", "problems", ""):
        table.add_column(heading, justify="right")
    table.add_column("")
    most = max(figures["histogram"])
    for right, count in enumerate(figures["histogram"]):
        inside = count and figures["low"] <= right / k <= figures["high"]
        table.add_row(str(right), f"{count:,}", "kept" if inside else "", "█" * round(32 * count / most))
    screen = console()
    screen.print(table)
    click.echo(
        f"kept     {figures['kept']:,} of {total:,} problems, with pass rates from {figures['low']:g} to "
        f"{figures['high']:g}; {figures['too_hard']:,} too hard, {figures['too_easy']:,} too easy\n"
        f"base     {percent(figures['mean_pass_rate'])} of its completions right, {percent(figures['clipped_ratio'])} "
        f"cut off at {run_config.grpo.max_completion_length:,} tokens"
    )
    if figures["kept"] < run_config.grpo.prompts_per_step:
        click.echo(f"warning  one step takes {run_config.grpo.prompts_per_step} different problems", err=True)
    click.echo(f"written  {file}\nnext     {command}")
