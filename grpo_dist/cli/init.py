"""`grpo-dist init`: a configuration to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

TINY, STARTER = "tiny-cpu.yaml", "starter.yaml"


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("grpo.yaml"))
@click.option("--tiny", is_flag=True, help="The example that trains in minutes on a CPU and downloads nothing.")
def init(path: Path, tiny: bool) -> None:
    """Write a commented configuration to PATH.

    A file that stands there is left alone.
    """
    from importlib import resources

    text = resources.files("grpo_dist.config").joinpath("starters", TINY if tiny else STARTER).read_text("utf-8")
    _write_new(path, text)
    click.echo(f"{path} written; next: grpo-dist {'run' if tiny else 'plan'} {shlex.quote(str(path))}")


def _write_new(path: Path, text: str) -> None:
    from grpo_dist.errors import ConfigError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{path}: something stands there already", hint="grpo-dist init OTHER-NAME.yaml") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: cannot be written: {reason}", hint="grpo-dist init OTHER-PATH.yaml") from error
