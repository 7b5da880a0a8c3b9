"""`grpo-dist run`: a whole run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from grpo_dist.cli.options import overrides_option


@click.command()
@click.argument("config")
@overrides_option
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="Run directory.  [default: runs/NAME-OF-CONFIG]"
)
@click.option("--resume", is_flag=True, help="Continue the run in the run directory, or start it if there is none.")
def run(config: str, overrides: tuple[str, ...], output: Path | None, resume: bool) -> None:
    """Train as CONFIG says, compare, and report.

    The run directory holds everything: configuration, plan, metrics, completions, checkpoints, the adapter,
    the comparison and report.html.
    """
    from grpo_dist.cluster.local import Interrupted, Stopped, execute, open_run
    from grpo_dist.cluster.outcome import TRY_AGAIN
    from grpo_dist.config import load_config
    from grpo_dist.progress import Terminal
    from grpo_dist.report import read_run, summary, write_html

    stated = load_config(config, overrides)
    path = output or Path("runs") / Path(config).stem
    directory, plan = open_run(stated, path, resume=resume)
    terminal = Terminal()
    for warning in plan.warnings:
        terminal.show(f"warning: {warning}")
    terminal.show(f"run directory: {path}")
    try:
        execute(directory, plan, stated, terminal)
    except Interrupted as stop:
        click.echo(f"stopped by {stop}; continue with the same command and --resume", err=True)
        raise click.exceptions.Exit(128 + stop.signum) from stop
    except Stopped as stop:
        click.echo(f"{stop}; continue with the same command and --resume", err=True)
        raise click.exceptions.Exit(TRY_AGAIN) from stop
    record = read_run(directory.path)
    write_html(record)
    click.echo(_result(summary(record)))
    click.echo(f"report   {path / 'report.html'}")


def _result(figures: dict[str, Any]) -> str:
    """What the run came to, in two lines."""
    if figures["problems"] is None:
        reward = figures["reward"]
        return f"reward   {reward['first']:.2f} in the first steps, {reward['last']:.2f} in the last"
    return "\n".join(
        f"{name:<8} {figures[name]['greedy_accuracy']:.1%} of {figures['problems']} held-out problems right, greedily"
        for name in ("base", "trained")
    )
