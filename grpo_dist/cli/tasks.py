"""`grpo-dist tasks`: what `grpo-dist init --task` and `--algorithm` take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from grpo_dist.cli.options import console, json_option

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@json_option
def tasks(as_json: bool) -> None:
    """List tasks, generators and algorithms that `init` takes.

    A task has its data and rewards, an algorithm the settings of its paper.
    """
    from grpo_dist.config.generators import PREFIX, generators
    from grpo_dist.config.starts import ALGORITHMS, TASKS

    made = list(generators())
    if as_json:
        known = {
            "tasks": {
                name: {"about": one.about, "data": one.data, "rewards": one.rewards, "needs": one.needs}
                for name, one in TASKS.items()
            },
            "generators": made,
            "algorithms": {
                name: {"about": one.about, "source": one.source, "grpo": one.grpo} for name, one in ALGORITHMS.items()
            },
        }
        click.echo(json.dumps(known, indent=2, ensure_ascii=False))
        return
    out = console()
    rows = [(name, one.about, one.data, ", ".join(one.rewards), one.needs) for name, one in TASKS.items()]
    out.print(_table(("--task", "what", "data", "rewards", "needs"), rows))
    out.print(_table(("--algorithm", "what", "source"), [(n, one.about, one.source) for n, one in ALGORITHMS.items()]))
    listed = ", ".join(made) if made else "reasoning-gym is not installed here"
    out.print(f"--task {PREFIX}NAME: {listed}", highlight=False, soft_wrap=False)


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
