"""`grpo-dist render`: the files of a run, before there is a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from grpo_dist.cli.options import Directory, overrides_option


@click.command()
@click.argument("config")
@overrides_option
@click.option("--output", type=Directory(file_okay=False), metavar="DIR", help="Where to write.")
@click.option(
    "--script",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Instead of DIR: a Slurm script alone, which takes any CONFIG and plans for its allocation.",
)
@click.option("--check", is_flag=True, help="Write nothing; say what in DIR is stale, missing or extra (exit 1).")
def render(config: str, overrides: tuple[str, ...], output: Path | None, script: Path | None, check: bool) -> None:
    """Write the files of a run.

    They are config.yaml, plan.json, accelerate.yaml, deepspeed.json (for ZeRO strategies) and job.sh (for Slurm:
    `sbatch --chdir=DIR DIR/job.sh`). The same CONFIG gives the same bytes. What its cluster: does not state is taken
    from the site's settings, as `submit` does.
    """
    if (output is None) == (script is None):
        raise click.UsageError("give either --output DIR or --script FILE")
    from grpo_dist.config import load_config, load_site
    from grpo_dist.plan import plan_run
    from grpo_dist.render import render_files
    from grpo_dist.render.slurm import any_job_script

    stated = load_config(config, overrides, load_site())
    plan = plan_run(stated)
    if script is None:
        files = render_files(stated, plan)
        directory, option = output, ("--output", output)
    else:
        files = {script.name: any_job_script(stated, plan, config, str(script))}
        directory, option = script.parent, ("--script", script)
    if check:
        _check(directory, files, command=_command(config, overrides, option))
        return
    _write(directory, files)
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)


def _check(directory: Path, files: Mapping[str, str], *, command: str) -> None:
    from grpo_dist.render.files import differences

    found = differences(_existing(directory, files), files)
    if not found:
        click.echo(f"{directory}: as rendered ({', '.join(sorted(files))})")
        return
    for difference in found:
        click.echo(f"{directory / difference.name}: {difference.kind}", err=True)
        for line in difference.lines:
            click.echo(f"  {line}", err=True)
    click.echo(f"  → re-record: {command}", err=True)
    raise click.exceptions.Exit(1)


def _write(directory: Path, files: Mapping[str, str]) -> None:
    """Write the files that differ, each atomically, and remove those of another plan."""
    from grpo_dist.errors import RunDirectoryError
    from grpo_dist.render.files import differences

    changed = differences(_existing(directory, files), files)
    if changed and _started(directory):
        raise RunDirectoryError(
            f"{directory}: a run has been started there, from other files",
            hint="render into another directory with --output DIR",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for difference in changed:
            _apply(directory / difference.name, files.get(difference.name))
    except OSError as error:
        raise RunDirectoryError(
            f"{error.filename or directory}: cannot be written ({error.strerror})",
            hint="choose another place with --output DIR",
        ) from error
    if not changed:
        click.echo(f"{directory}: nothing to change")


def _apply(path: Path, text: str | None) -> None:
    from grpo_dist.run.directory import write_atomically

    if text is None:
        path.unlink()
    else:
        write_atomically(path, text)
    click.echo(f"{'removed' if text is None else 'wrote'} {path}")


def _started(directory: Path) -> bool:
    from grpo_dist.run.directory import RunDirectory

    run = RunDirectory(directory)
    return any(path.exists() for path in (run.logs, run.prepared, run.metrics, run.checkpoints))


def _existing(directory: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Name → text of the existing files: all that can be rendered into a run directory, or only the script."""
    from grpo_dist.render import RENDERED
    from grpo_dist.run.directory import PLAN_FILE

    paths = (directory / name for name in (RENDERED if PLAN_FILE in files else files))
    return {path.name: path.read_bytes().decode(errors="replace") for path in paths if path.is_file()}


def _command(config: str, overrides: Sequence[str], option: tuple[str, Path]) -> str:
    settings = [word for override in overrides for word in ("--set", override)]
    return shlex.join(["grpo-dist", "render", config, *map(str, option), *settings])
