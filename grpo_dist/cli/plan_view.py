"""The output of `grpo-dist plan` and `grpo-dist scale` for a reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from click import style

from grpo_dist.cli.columns import grid, paragraphs, table
from grpo_dist.plan import LaunchPlan, Topology
from grpo_dist.plan.fit import nodes_of_a_group
from grpo_dist.report.numbers import NOTHING
from grpo_dist.text import gib

INDENT = 20
"""Columns before a section's rows, for its title."""
MEMORY, ASSUMED = "memory: ", "assumed"
BAR = 40
"""Width of the bar that stands for a whole GPU."""
COLOURS = ("blue", "cyan", "magenta", "green", "yellow", "red")


def shown_plan(plan: LaunchPlan, columns: int) -> Iterator[str]:
    """Topology, batch, memory, time, warnings: lines of at most that many columns."""
    for title, rows in _sections(plan):
        right = (1,) if title == ASSUMED or title.startswith(MEMORY) else ()
        for first, line in enumerate(grid(rows, columns - INDENT, right)):
            yield f"{'' if first else style(f'{title:<{INDENT}}', bold=True):<{INDENT}}{line}"
        yield ""
    for warning in plan.warnings:
        yield from paragraphs(f"warning: {warning}", columns, fg="yellow")


def _sections(plan: LaunchPlan) -> Iterator[tuple[str, Iterator[tuple[str, ...]]]]:
    yield "topology", _topology(plan)
    yield "batch", _batch(plan)
    if plan.memory is not None:
        for name, role in plan.memory["roles"].items():
            yield f"{MEMORY}{name}", _memory(plan, role)
        if host := plan.memory["host_bytes_per_node"]:
            yield "host memory", iter([(f"{gib(host)} of each node's memory hold the weights of sleeping engines",)])
        if compared := plan.memory["comparison"]:
            yield "comparison", _fullest(plan, compared)
    if plan.time is not None:
        yield "time", _time(plan.time)
        yield ASSUMED, assumptions(plan.time["assumptions"])


def _topology(plan: LaunchPlan) -> Iterator[tuple[str]]:
    where = plan.topology
    yield (where.reason,)
    each = where.num_processes // where.trainer_nodes
    on = f"GPU {_span(where.trainer_gpus)}" if where.trainer_gpus else "CPU"
    nodes = _span(range(where.trainer_nodes))
    processes = f"{each} training process{'' if each == 1 else 'es'}{' each' if where.trainer_nodes > 1 else ''}"
    yield (f"node {nodes}: {processes}, {on}; {plan.strategy}",)
    if where.replicas:
        yield (_replicas(where),)


def _replicas(where: Topology) -> str:
    nodes = sorted({replica.node for replica in where.replicas})
    first = [replica for replica in where.replicas if replica.node == nodes[0]]
    on = f"GPU {_span(sorted(gpu for replica in first for gpu in replica.gpus))}" if first[0].gpus else "CPU"
    size = f" of {where.tensor_parallel_size} GPUs" if where.tensor_parallel_size > 1 else ""
    count = len(where.replicas)
    replicas = "1 vLLM replica" if count == 1 else f"{count} vLLM replicas"
    return f"node {_span(nodes)}: {replicas}{size}{' in all' if count > 1 else ''}, {on}"


def _span(numbers: Any) -> str:
    numbers = list(numbers)
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"


def _batch(plan: LaunchPlan) -> Iterator[tuple[str]]:
    batch = plan.batch
    completions = batch.generation_batch_size
    yield (f"{batch.prompts_per_step} prompts × {batch.num_generations} completions = {completions} per step",)
    processes = f"{batch.num_processes} process{'' if batch.num_processes == 1 else 'es'}"
    yield (
        f"{processes} × {batch.per_device_train_batch_size} at a time × {batch.gradient_accumulation_steps} accumulated"
        f" = {completions}",
    )
    spans = nodes_of_a_group(batch.num_generations, completions, plan.topology.trainer_nodes)
    if spans > 1:
        yield (f"the completions of one prompt are trained on {spans} nodes",)
    yield (f"a checkpoint every {plan.save_steps} steps",)


def _fullest(plan: LaunchPlan, role: dict[str, Any]) -> Iterator[tuple[str]]:
    whole, total = plan.memory["gpu_bytes"], gib(role["total_bytes"])
    room = "" if whole is None else f" of {gib(whole)} ({plan.memory['gpu']}), {gib(role['headroom_bytes'])} left"
    yield (f"{total}{room}; the most while: {role['peak_phase']}",)


def _memory(plan: LaunchPlan, role: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    whole = plan.memory["gpu_bytes"]
    yield from _fullest(plan, role)
    parts = sorted(role["components"], key=lambda part: -part["bytes"])
    yield (_bar(parts, whole or role["total_bytes"]),)
    for number, part in enumerate(parts):
        block = style("█ ", fg=COLOURS[number % len(COLOURS)])
        yield block + part["name"], gib(part["bytes"]), part["source"]


def _bar(parts: list[dict[str, Any]], whole: int) -> str:
    bar, used, drawn = "", 0, 0
    for number, part in enumerate(parts):
        width = round((used + part["bytes"]) * BAR / whole) - round(used * BAR / whole)
        used, drawn = used + part["bytes"], drawn + width
        bar += style("█" * width, fg=COLOURS[number % len(COLOURS)])
    return bar + style("░" * max(0, BAR - drawn), dim=True)


def _time(time: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    yield (f"{time['seconds_per_step']:,.1f} s per step, {time['tokens_per_second']:,.0f} tokens/s",)
    for part in time["parts"]:
        yield f"{part['name']:<18}{part['seconds']:>10,.1f} s", part["how"]
    if compared := time["comparison"]:
        how = f"{compared['completions']:,} completions by {compared['answering']}, after the last step"
        yield f"{'comparison':<18}{compared['seconds']:>10,.1f} s", how
    hours = time["gpu_hours_per_step"]
    if time["steps"]:
        total = f"{time['steps']:,} steps in {time['hours']:,.1f} h"
        yield (total if hours is None else f"{total}, {time['gpu_hours']:,.1f} GPU-hours",)
        if time["comparison"]:
            whole = f"with the comparison {time['run_hours']:,.1f} h"
            yield (whole if hours is None else f"{whole}, {time['run_gpu_hours']:,.1f} GPU-hours",)
    elif hours is not None:
        yield (f"{100 * hours:,.2f} GPU-hours per 100 steps",)


def assumptions(stated: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(name, value, source) of what a time was worked out with."""
    for assumed in stated:
        yield assumed["name"], f"{assumed['value']:,.6g}", assumed["source"]


class Column(NamedTuple):
    """A column: heading, key of the row, format."""

    heading: str
    key: str
    form: str = "{:,}"


KEYS = (Column("nodes", "nodes"), Column("group", "num_generations"))
BATCH = (
    Column("prompts", "prompts_per_step"),
    Column("completions", "completions_per_step"),
    Column("training\nprocesses", "num_processes"),
    Column("at a\ntime", "per_device_train_batch_size"),
    Column("accumu-\nlated", "gradient_accumulation_steps"),
    Column("replicas", "replicas"),
    Column("learning\nrate", "learning_rate", "{:.2g}"),
)
STEP = (
    Column("step", "seconds_per_step", "{:,.1f}"),
    Column("generation", "generation_seconds", "{:,.1f}"),
    Column("training", "training_seconds", "{:,.1f}"),
    Column("sync", "sync_seconds", "{:,.1f}"),
    Column("tokens/s\nper GPU", "tokens_per_second_per_gpu", "{:,.0f}"),
    Column("of\nlinear", "efficiency", "{:.0%}"),
    Column("other mode", "other", "{}"),
)
RUN = (
    Column("hours", "run_hours", "{:,.1f}"),
    Column("GPU-\nhours", "run_gpu_hours", "{:,.1f}"),
    Column("comparison\nseconds", "comparison_seconds", "{:,.0f}"),
    Column("cost", "cost", "{:,.0f}"),
    Column("hours per\nepoch", "hours_per_epoch", "{:,.1f}"),
    Column("jobs", "jobs"),
    Column("steps in\na job", "steps_per_job"),
    Column("GiB per GPU\n(left)", "fullest", "{}"),
)


def shown_sizes(
    rows: list[dict[str, Any]], keep: str, steps: int, stated: list[dict[str, Any]], columns: int
) -> Iterator[str]:
    """Lines of at most that many columns: the tables, sizes that cannot run, warnings, and what was assumed."""
    running = [_with_cells(row) for row in rows if row["runs"]]
    timed = [row for row in running if "generation_seconds" in row]
    yield from _size_table(f"Batch ({keep} kept)", BATCH, running, columns)
    yield from _size_table("Seconds of a step", STEP, timed, columns)
    yield from _size_table(f"The run: {steps:,} steps and the comparison", RUN, timed or running, columns)
    yield from _explained(timed, columns)
    for text in (*_problems(rows), *_warnings(rows)):
        yield from paragraphs(text, columns, fg="yellow")
    for source in dict.fromkeys(row["learning_rate"]["source"] for row in rows if row["learning_rate"]):
        yield from paragraphs(f"learning rate: a value to start from, not a law; {source}", columns, dim=True)
    if stated:
        yield from ("", style("Assumed", bold=True), *grid(assumptions(stated), columns, right=(1,)))


def _size_table(title: str, columns: tuple[Column, ...], rows: list[dict[str, Any]], width: int) -> Iterator[str]:
    """Without columns that are empty in every row."""
    filled = [column for column in columns if any(row.get(column.key) is not None for row in rows)]
    if not filled:
        return
    named = (*KEYS, *filled)
    cells = [[_cell(row.get(column.key), column.form) for column in named] for row in rows]
    yield style(title, bold=True)
    yield from table([column.heading for column in named], cells, width, len(KEYS))
    yield ""


def _cell(value: Any, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _with_cells(row: dict[str, Any]) -> dict[str, Any]:
    """The row with what is written differently from its JSON."""
    fullest = max(row["memory"].values(), key=lambda role: role["total_bytes"], default=None)
    other = row.get("other_seconds_per_step")
    return {
        **row,
        "learning_rate": row["learning_rate"]["learning_rate"],
        "replicas": row["replicas"] or None,
        "fullest": fullest and _memory_cell(fullest),
        "other": other and f"{row['other_mode']} {other:,.1f}",
    }


def _explained(timed: list[dict[str, Any]], columns: int) -> Iterator[str]:
    """What headings of the tables do not say."""
    meanings = {
        "efficiency": "of linear: tokens/s per GPU, compared with those on the fewest GPUs",
        "other": "other mode: the step on the same machines in the mode that is not configured, colocate or server",
        "jobs": "jobs: of cluster.time, one after the other",
        "steps_per_job": "steps in a job: where cluster.time ends it",
    }
    for key, text in meanings.items():
        if any(row.get(key) is not None for row in timed):
            yield from paragraphs(text, columns, dim=True)


def _memory_cell(role: dict[str, Any]) -> str:
    left = role["headroom_bytes"]
    return f"{role['total_bytes'] / 2**30:.1f}" + ("" if left is None else f" ({left / 2**30:.1f})")


def _problems(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["problem"]:
            hint = f"\n  → {row['problem']['hint']}" if row["problem"]["hint"] else ""
            yield f"{_name(row)}: {row['problem']['message']}{hint}"


def _warnings(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each warning once, with its sizes unless it concerns all of them."""
    about: dict[str, list[str]] = {}
    for row in rows:
        for warning in row.get("warnings", ()):
            about.setdefault(warning, []).append(_name(row))
    running = sum(row["runs"] for row in rows)
    for warning, names in about.items():
        yield f"warning: {warning}" if len(names) == running else f"warning: {'; '.join(names)}: {warning}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['nodes']} node{'' if row['nodes'] == 1 else 's'}, group {row['num_generations']}"
