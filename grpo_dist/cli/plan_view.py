"""The tables of `grpo-dist plan` and `grpo-dist scale`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grpo_dist.plan import LaunchPlan, Topology
from grpo_dist.plan.fit import nodes_of_a_group
from grpo_dist.text import gib

BAR = 40
"""Width of the bar that stands for a whole GPU."""
COLOURS = ("blue", "cyan", "magenta", "green", "yellow", "red")


def print_plan(plan: LaunchPlan, console: Console) -> None:
    """Topology, batch, memory, time, warnings."""
    console.print(_section("topology", _topology(plan)))
    console.print(_section("batch", _batch(plan)))
    if plan.memory is not None:
        for name, role in plan.memory["roles"].items():
            console.print(_section(f"memory: {name}", _memory(plan, role)))
        if host := plan.memory["host_bytes_per_node"]:
            asleep = f"{gib(host)} of each node's memory hold the weights of sleeping engines"
            console.print(_section("host memory", iter([(asleep,)])))
        if compared := plan.memory["comparison"]:
            console.print(_section("comparison", _fullest(plan, compared)))
    if plan.time is not None:
        console.print(_section("time", _time(plan.time)))
        console.print(_section("assumed", _assumptions(plan)))
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))


def _section(title: str, rows: Iterator[tuple[Any, ...]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", width=18)
    for first, row in enumerate(rows):
        table.add_row(title if first == 0 else "", *(Text(cell) if isinstance(cell, str) else cell for cell in row))
    table.add_row("")
    return table


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


def _memory(plan: LaunchPlan, role: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    whole = plan.memory["gpu_bytes"]
    yield from _fullest(plan, role)
    parts = sorted(role["components"], key=lambda part: -part["bytes"])
    yield (_bar(parts, whole or role["total_bytes"]),)
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for number, part in enumerate(parts):
        block = Text("█ ", style=COLOURS[number % len(COLOURS)])
        table.add_row(block + Text(part["name"]), gib(part["bytes"]), Text(part["source"]))
    yield (table,)


def _bar(parts: list[dict[str, Any]], whole: int) -> Text:
    bar, used = Text(), 0
    for number, part in enumerate(parts):
        width = round((used + part["bytes"]) * BAR / whole) - round(used * BAR / whole)
        used += part["bytes"]
        bar.append("█" * width, style=COLOURS[number % len(COLOURS)])
    return bar.append("░" * max(0, BAR - len(bar)), style="dim")


def _time(time: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    yield (f"{time['seconds_per_step']:,.1f} s per step, {time['tokens_per_second']:,.0f} tokens/s", "")
    for part in time["parts"]:
        yield f"{part['name']:<18}{part['seconds']:>10,.1f} s", Text(part["how"], style="dim")
    if compared := time["comparison"]:
        how = f"{compared['completions']:,} completions by {compared['answering']}, after the last step"
        yield f"{'comparison':<18}{compared['seconds']:>10,.1f} s", Text(how, style="dim")
    hours = time["gpu_hours_per_step"]
    if time["steps"]:
        total = f"{time['steps']:,} steps in {time['hours']:,.1f} h"
        yield (total if hours is None else f"{total}, {time['gpu_hours']:,.1f} GPU-hours"), ""
        if time["comparison"]:
            whole = f"with the comparison {time['run_hours']:,.1f} h"
            yield (whole if hours is None else f"{whole}, {time['run_gpu_hours']:,.1f} GPU-hours"), ""
    elif hours is not None:
        yield f"{100 * hours:,.2f} GPU-hours per 100 steps", ""


def _assumptions(plan: LaunchPlan) -> Iterator[tuple[Any, ...]]:
    for assumed in plan.time["assumptions"] if plan.time else ():
        yield assumed["name"], f"{assumed['value']:,.6g}", Text(assumed["source"], style="dim")


NOTHING = "–"
COLUMNS = (
    "nodes",
    "group",
    "prompts",
    "completions",
    "training × at a time × accum.",
    "replicas",
    "GiB a GPU (left)",
    "learning rate",
    "tokens/step",
    "s/step",
)


class Column(NamedTuple):
    """A column of the time table: heading, key of the row, format."""

    name: str
    key: str
    form: str


TIMES = (
    Column("gen. s", "generation_seconds", "{:,.1f}"),
    Column("train s", "training_seconds", "{:,.1f}"),
    Column("sync s", "sync_seconds", "{:,.1f}"),
    Column("compare s", "comparison_seconds", "{:,.0f}"),
    Column("tokens/s GPU", "tokens_per_second_per_gpu", "{:,.0f}"),
    Column("linear", "efficiency", "{:.0%}"),
    Column("other", "other_mode", "{}"),
    Column("its s", "other_seconds_per_step", "{:,.1f}"),
    Column("hours", "run_hours", "{:,.1f}"),
    Column("h/epoch", "hours_per_epoch", "{:,.1f}"),
    Column("jobs", "jobs", "{:,}"),
    Column("cost", "cost", "{:,.0f}"),
)


TIMES_CAPTION = (
    "gen., train, sync: of a step; compare: after the last; linear: tokens/s of a GPU, of those on the fewest; "
    "other, its: the other mode and its step; hours: with the comparison; jobs: of cluster.time"
)


def print_sizes(
    rows: list[dict[str, Any]], keep: str, steps: int, assumptions: list[dict[str, Any]], console: Console
) -> None:
    """The tables, then sizes that cannot run, warnings, the source of the learning rates, and assumptions."""
    table = Table(caption=f"{keep} kept; hours of {steps:,} optimizer steps", caption_justify="left")
    for name in (*COLUMNS, "hours", "GPU-hours"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(cells(row) if row["runs"] else _refused(row)))
    console.print(table)
    if any("generation_seconds" in row for row in rows):
        console.print(_times(rows))
    for text in (*_problems(rows), *_warnings(rows)):
        console.print(Text(text, style="yellow"))
    for source in dict.fromkeys(row["learning_rate"]["source"] for row in rows if row["learning_rate"]):
        console.print(Text(f"learning rate: a value to start from, not a law; {source}", style="dim"))
    for assumed in assumptions:
        console.print(Text(f"assumed: {assumed['name']} {assumed['value']:,.6g} ({assumed['source']})", style="dim"))


def _times(rows: list[dict[str, Any]]) -> Table:
    """Where the time goes for each size, and the totals of the run."""
    timed = [row for row in rows if "generation_seconds" in row]
    columns = [column for column in TIMES if any(row.get(column.key) is not None for row in timed)]
    table = Table(caption=TIMES_CAPTION, caption_justify="left")
    for name in ("nodes", "group", *(column.name for column in columns)):
        table.add_column(name, justify="right")
    for row in timed:
        shown = (_cell(row.get(column.key), column.form) for column in columns)
        table.add_row(f"{row['nodes']:,}", f"{row['num_generations']:,}", *shown)
    return table


def _cell(value: Any, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def cells(row: dict[str, Any]) -> Iterator[str]:
    """The cells of a size that can run."""
    yield from _batch_cells(row)
    per_device, accumulated = row["per_device_train_batch_size"], row["gradient_accumulation_steps"]
    yield f"{row['num_processes']} × {per_device} × {accumulated}"
    yield str(row["replicas"] or NOTHING)
    fullest = max(row["memory"].values(), key=lambda role: role["total_bytes"], default=None)
    yield NOTHING if fullest is None else _memory_cell(fullest)
    yield f"{row['learning_rate']['learning_rate']:.2g}"
    for name, digits in (("tokens_per_step", 0), ("seconds_per_step", 1), ("hours", 1), ("gpu_hours", 1)):
        yield NOTHING if row[name] is None else f"{row[name]:,.{digits}f}"


def _refused(row: dict[str, Any]) -> Iterator[str]:
    yield from _batch_cells(row)
    yield "cannot run"
    yield from [NOTHING] * (len(COLUMNS) + 2 - 5)


def _batch_cells(row: dict[str, Any]) -> Iterator[str]:
    for name in ("nodes", "num_generations", "prompts_per_step", "completions_per_step"):
        yield NOTHING if row[name] is None else f"{row[name]:,}"


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
