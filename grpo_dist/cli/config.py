"""`grpo-dist init` and `grpo-dist config`: a configuration to start from, one with all defaults, and a schema."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from grpo_dist.cli.options import overrides_option

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


@click.group()
def config() -> None:
    """Show a configuration, or its schema."""


@config.command()
@click.argument("config")
@overrides_option
def show(config: str, overrides: tuple[str, ...]) -> None:
    """Print CONFIG with every default written out.

    So the run directory of a job keeps it, but for passwords, keys and tokens, which are hidden here. What its
    cluster: does not state is taken from the site's settings, ~/.config/grpo-dist/site.yaml or the file that
    GRPO_DIST_SITE names, where there is one.
    """
    from grpo_dist.config import dump_config, load_config, load_site

    click.echo(dump_config(load_config(config, overrides, load_site()), public=True), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of configurations.

    Editors with a YAML language server complete and check a configuration that lies beside it and starts with the line

    \b
        # yaml-language-server: $schema=grpo-dist.schema.json
    """
    import json

    from grpo_dist.config.json_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
