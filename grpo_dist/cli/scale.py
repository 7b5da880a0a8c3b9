"""`grpo-dist scale`: one configuration on clusters of several sizes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from grpo_dist.cli.options import Numbers, calibrate_option, console, json_option, measured, overrides_option


@click.command()
@click.argument("config")
@click.option("--nodes", type=Numbers(1, 10_000), required=True, help="Numbers of nodes, e.g. 1,2,4,8,16.")
@click.option("--num-generations", "groups", type=Numbers(2, 1_000_000), help="Group sizes, e.g. 8,16,32,64.")
@click.option(
    "--keep",
    type=click.Choice(["prompts", "completions", "group"]),
    default="prompts",
    show_default=True,
    help="What stays the same from size to size; see above.",
)
@overrides_option
@json_option
@calibrate_option
def scale(
    config: str,
    nodes: tuple[int, ...],
    groups: tuple[int, ...] | None,
    keep: str,
    overrides: tuple[str, ...],
    as_json: bool,
    calibrate: Path | None,
) -> None:
    """Work it out for clusters of several sizes.

    A row for each: group, batch, learning rate, memory, time, GPU-hours.

    \b
    --keep prompts      prompts per step stay: the same step, faster with more nodes;
                        a larger group adds completions.
    --keep completions  completions per step stay: a larger group means fewer prompts.
    --keep group        the group and the completions per node stay: prompts per step
                        grow with the nodes. Takes no --num-generations.

    A size that cannot run is a row with its reason. Hours are for grpo.max_steps, or for 100 steps where it is not
    stated.

    At the configuration's own number of nodes, rollout.nodes, rollout.replicas and distributed.num_processes hold as
    stated; at other sizes the GPUs are shared out afresh.
    """
    if keep == "group" and groups:
        raise click.UsageError("--keep group keeps the group as configured; leave --num-generations out")
    from grpo_dist.config import load_config
    from grpo_dist.plan.scale import hours_of, sizes

    stated = load_config(config, overrides)
    found = list(sizes(stated, nodes, groups or (), keep, measured(calibrate)))
    steps = hours_of(stated)
    rows = [size.to_dict(steps) for size in found]
    assumptions = next((size.plan.time["assumptions"] for size in found if size.plan and size.plan.time), [])
    if as_json:
        text = json.dumps({"keep": keep, "steps": steps, "sizes": rows, "assumptions": assumptions}, indent=2)
        click.echo(text)
        return
    from grpo_dist.cli.scale_view import print_sizes

    print_sizes(rows, keep, steps, assumptions, console())
