"""The output of `grpo-dist plan` as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
