"""`grpo-dist config`: a configuration with all defaults, and the schema."""

from __future__ import annotations

import click

from grpo_dist.cli.options import Commands, overrides_option


@click.group(cls=Commands)
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

    Editors with a YAML language server complete and check a configuration that is next to it and starts with the line

    \b
        # yaml-language-server: $schema=grpo-dist.schema.json
    """
    import json

    from grpo_dist.config.json_schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
