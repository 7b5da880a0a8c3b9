"""`grpo-dist plan`: topology, batch, memory and time of a configuration, before anything is started."""

from __future__ import annotations

from pathlib import Path

import click

from grpo_dist.cli.options import (
    calibrate_option,
    json_option,
    mean_completion_option,
    measured,
    nodes_option,
    overrides_option,
    start_quickly,
    with_nodes,
)


@click.command()
@click.argument("config")
@nodes_option
@overrides_option
@json_option
@calibrate_option
@mean_completion_option
def plan(
    config: str,
    nodes: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
    calibrate: Path | None,
    mean_completion: int | None,
) -> None:
    """Show what a run of CONFIG needs.

    It shows who runs where, the batch, the memory of a GPU and the time of a step. Nothing is started and no network
    is used. If the program does not know the model by name, its config.json must be in the Hub cache or in a local
    directory. Without it memory and time are left out.

    What cannot run is refused (exit 2) with the numbers and the nearest settings that can.
    """
    start_quickly()
    from grpo_dist.config import load_config
    from grpo_dist.plan import plan_run
    from grpo_dist.plan.named_files import check_adapter, check_files, names_local_files

    run_config = load_config(config, with_nodes(overrides, nodes))
    check_files(run_config)
    check_adapter(run_config)
    if names_local_files(run_config):
        from grpo_dist.data.early import check_early

        check_early(run_config, elsewhere=run_config.cluster.nodes > 1)
    planned = plan_run(run_config, measured(calibrate, mean_completion))
    if as_json:
        click.echo(planned.to_json(), nl=False)
        return
    from grpo_dist.cli.columns import show, width
    from grpo_dist.cli.plan_view import shown_plan

    show(shown_plan(planned, width()))
