"""`grpo-dist scale`: one configuration on clusters of several sizes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from grpo_dist.cli.options import (
    Numbers,
    calibrate_option,
    json_option,
    mean_completion_option,
    measured,
    overrides_option,
    start_quickly,
)


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
@click.option("--problems", type=click.IntRange(1), help="Problems in the data, for the hours of an epoch.")
@click.option("--price", type=click.FloatRange(0), help="Of a GPU-hour, for the cost of a run.")
@overrides_option
@json_option
@calibrate_option
@mean_completion_option
def scale(
    config: str,
    nodes: tuple[int, ...],
    groups: tuple[int, ...] | None,
    keep: str,
    problems: int | None,
    price: float | None,
    overrides: tuple[str, ...],
    as_json: bool,
    calibrate: Path | None,
    mean_completion: int | None,
) -> None:
    """Plan CONFIG for clusters of several sizes.

    Each size has a row with group, batch, learning rate, memory, time and GPU-hours. The tables also show where the
    time goes (generation, training, synchronisation, the comparison), tokens/s per GPU and how much of it is kept as
    GPUs are added, the step in the other mode (colocate or server), and how many jobs of cluster.time the run takes.

    \b
    --keep prompts      prompts per step stay: the same step, faster with more nodes;
                        a larger group adds completions.
    --keep completions  completions per step stay: a larger group means fewer prompts.
    --keep group        the group and the completions per node stay: prompts per step
                        grow with the nodes. Takes no --num-generations.

    A size that cannot run is named below the tables, with its reason. Hours are for grpo.max_steps, or for 100 steps if
    it is not set.

    At the configuration's own number of nodes, rollout.nodes, rollout.replicas and distributed.num_processes are
    used as set; at other sizes the GPUs are divided again.
    """
    if keep == "group" and groups:
        raise click.UsageError("--keep group keeps the group as configured; leave --num-generations out")
    start_quickly()
    from grpo_dist.config import load_config
    from grpo_dist.plan.scale import hours_of, sizes
    from grpo_dist.plan.scale import rows as rows_of

    stated = load_config(config, overrides)
    found = list(sizes(stated, nodes, groups or (), keep, measured(calibrate, mean_completion)))
    steps = hours_of(stated)
    rows = rows_of(found, steps, problems or stated.data.max_samples, price)
    assumptions = next((size.plan.time["assumptions"] for size in found if size.plan and size.plan.time), [])
    if as_json:
        text = json.dumps({"keep": keep, "steps": steps, "sizes": rows, "assumptions": assumptions}, indent=2)
        click.echo(text)
        return
    from grpo_dist.cli.columns import show, width
    from grpo_dist.cli.plan_view import shown_sizes

    show(shown_sizes(rows, keep, steps, assumptions, width()))
