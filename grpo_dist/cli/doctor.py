"""`grpo-dist doctor`: whether this machine can run it."""

from __future__ import annotations

import json

import click

from grpo_dist.cli.options import console, json_option, overrides_option


@click.command()
@click.argument("config", required=False)
@overrides_option
@json_option
def doctor(config: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Look at this machine, and whether CONFIG can run on it.

    Python and packages, GPUs and who uses them, disks, file locks, shared memory, limits, interfaces, Slurm, the Hub
    and its cache, secrets (whether they are there, never what they are). Without CONFIG nothing is an error that only
    some configuration would need.

    Exit 1 when CONFIG could not run.
    """
    from grpo_dist.doctor import doctor_context, examine
    from grpo_dist.findings import Finding, any_error

    if config is None and overrides:
        raise click.UsageError("--set changes a configuration; give CONFIG too")
    stated, plan, refused = None, None, []
    if config is not None:
        from grpo_dist.config import load_config
        from grpo_dist.data.early import check_early
        from grpo_dist.errors import ConfigError
        from grpo_dist.launch.checks import check_reward_settings
        from grpo_dist.plan import plan_run

        stated = load_config(config, overrides)
        try:
            check_reward_settings(stated)
            check_early(stated, elsewhere=stated.cluster.nodes > 1)
            plan = plan_run(stated)
        except ConfigError as error:
            refused = [Finding("plan", "error", error.message, error.hint)]
    found = [*refused, *examine(doctor_context(stated, plan))]
    if as_json:
        click.echo(json.dumps([finding.to_dict() for finding in found], indent=2, ensure_ascii=False))
    else:
        from grpo_dist.cli.views import print_findings

        print_findings(found, console())
    if any_error(found):
        raise click.exceptions.Exit(1)
