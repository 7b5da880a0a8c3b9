"""The output of `grpo-dist status` as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.report.numbers import NOTHING, duration, number
from grpo_dist.slurm.status import RunStatus

COLUMNS = ("run", "state", "job", "nodes", "step", "reward", "tokens/s", "attempts", "steps' time left", "limit's")
COLOURS = {"running": "green", "finished": "bold green", "queued": "yellow", "stopped": "yellow", "failed": "red"}
PLAIN = ("RUNNING", "COMPLETED")
"""States of Slurm that say no more than those of `RunStatus`."""


def print_status(runs: Sequence[RunStatus], console: Console) -> None:
    """A row for each run, then why some of them wait or failed."""
    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("run", "state", "nodes") else "right", overflow="fold")
    for run in runs:
        table.add_row(Text(str(run.run)), Text(run.state, style=COLOURS.get(run.state, "")), *_cells(run))
    console.print(table)
    for run in runs:
        if why := ": ".join(word for word in (run.queue_state, run.reason) if word and word not in PLAIN):
            console.print(Text(f"{run.run}: {run.state}: {why}", style=COLOURS.get(run.state, "")))


def _cells(run: RunStatus) -> Iterator[Text]:
    of = f"/{run.max_steps:,}" if run.max_steps else ""
    for cell in (
        run.job_id or NOTHING,
        run.nodes or NOTHING,
        f"{run.step:,}{of}",
        number(run.reward),
        number(run.tokens_per_second),
        str(run.attempts),
        NOTHING if run.seconds_left_of_steps is None else duration(run.seconds_left_of_steps),
        NOTHING if run.seconds_left_of_limit is None else duration(run.seconds_left_of_limit),
    ):
        yield Text(cell)
