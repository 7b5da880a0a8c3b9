"""`grpo-dist prefetch`: download models and data for nodes without a network."""

from __future__ import annotations

import json

import click

from grpo_dist.cli.options import console, json_option, overrides_option


@click.command()
@click.argument("config")
@overrides_option
@json_option
def prefetch(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Fetch what CONFIG loads from the Hub.

    Model, tokenizer and data sets go into the Hub's cache (HF_HOME), for compute nodes that have no network. After
    an interruption, the same command continues at the byte where it stopped. At the end everything is loaded once with
    the network off.

    Exit 1 when something could not be fetched, or would not load.
    """
    from grpo_dist.config import load_config
    from grpo_dist.findings import any_error
    from grpo_dist.launch.commands import prefetch as fetch
    from grpo_dist.launch.process import Interrupted
    from grpo_dist.progress import Terminal

    run_config = load_config(config, overrides)
    try:
        found = fetch(run_config, Terminal())
    except Interrupted as stop:
        click.echo(f"stopped by {stop}; the same command continues where it stopped", err=True)
        raise click.exceptions.Exit(128 + stop.signum) from stop
    if as_json:
        click.echo(json.dumps([finding.to_dict() for finding in found], indent=2, ensure_ascii=False))
    elif found:
        from grpo_dist.cli.views import print_findings

        print_findings(found, console())
    else:
        click.echo("nothing to fetch: model and data are local or embedded")
    if any_error(found):
        raise click.exceptions.Exit(1)
