"""`grpo-dist run`: a whole run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from grpo_dist.cli.options import Directory, overrides_option


@click.command()
@click.argument("config")
@overrides_option
@click.option("--output", type=Directory(), metavar="DIR", help="Run directory.  [default: runs/NAME-OF-CONFIG]")
@click.option("--resume", is_flag=True, help="Continue the run in the run directory, or start it if there is none.")
@click.option("--debug", is_flag=True, help="Try it on this machine first, scaled down to fit.")
@click.option("--json", "as_json", is_flag=True, help="With --debug: print JSON instead of tables.")
def run(config: str, overrides: tuple[str, ...], output: Path | None, resume: bool, debug: bool, as_json: bool) -> None:
    """Train as CONFIG says, compare, and report.

    The run directory holds everything: configuration, plan, metrics, completions, checkpoints, the adapter,
    the comparison and report.html.

    With --debug a cluster's configuration is tried on this machine: same rewards, data and code, a model of the
    same family, one process, a few short steps, in a run directory of its own (runs/NAME-OF-CONFIG-debug), which every
    further try replaces. It ends with what would fail on the cluster. Exit 1 when that could not work.
    """
    if as_json and not debug:
        raise click.UsageError("--json goes with --debug; of a run: grpo-dist report RUN --json")
    if debug and resume:
        raise click.UsageError("a debug run takes minutes and starts from the beginning each time; leave out --resume")
    if debug:
        return _debug(config, overrides, output, as_json)
    from grpo_dist.config import load_config
    from grpo_dist.launch.local import execute, open_run
    from grpo_dist.launch.process import Interrupted
    from grpo_dist.progress import Terminal
    from grpo_dist.report.html import write_html
    from grpo_dist.report.record import read_run
    from grpo_dist.report.summary import summary
    from grpo_dist.run.control import TRY_AGAIN, Stopped

    run_config = load_config(config, overrides)
    path = output or Path("runs") / Path(config).stem
    directory, plan = open_run(run_config, path, resume=resume)
    terminal = Terminal()
    for warning in plan.warnings:
        terminal.show(f"warning: {warning}")
    terminal.show(f"run directory: {path}")
    try:
        execute(directory, plan, run_config, terminal)
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


def _debug(config: str, overrides: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    from grpo_dist.cli.options import console
    from grpo_dist.cli.views import debug_lines
    from grpo_dist.config import load_config
    from grpo_dist.debug import debug, open_debug
    from grpo_dist.findings import any_error
    from grpo_dist.launch.process import Interrupted
    from grpo_dist.progress import Terminal
    from grpo_dist.report.html import write_html
    from grpo_dist.report.record import read_run

    run_config = load_config(config, overrides)
    path = output or Path("runs") / f"{Path(config).stem}-debug"
    directory, made = open_debug(run_config, path)
    terminal = Terminal()
    for line in (*debug_lines(made, console(stderr=True).width), f"run directory: {path}"):
        terminal.show(line)
    try:
        found = debug(run_config, directory, made, terminal)
    except Interrupted as stop:
        raise click.exceptions.Exit(128 + stop.signum) from stop
    write_html(read_run(directory.path))
    if as_json:
        click.echo(directory.debug.read_text(encoding="utf-8"), nl=False)
    else:
        from grpo_dist.cli.views import print_findings

        click.echo("on the cluster, as far as this machine can tell:")
        print_findings(found, console())
    if any_error(found):
        raise click.exceptions.Exit(1)


def _result(figures: dict[str, Any]) -> str:
    """The result of the run in two lines."""
    if figures["problems"] is None:
        reward = figures["reward"]
        return f"reward   {reward['first']:.2f} in the first steps, {reward['last']:.2f} in the last"
    what = f"{figures['problems']} held-out problems correct (greedy decoding)"
    return "\n".join(f"{name:<8} {figures[name]['greedy_accuracy']:.1%} of {what}" for name in ("base", "trained"))
