"""`grpo-dist rewards`: test the rewards of a configuration before training with them."""

from __future__ import annotations

import json
from typing import Any

import click

from grpo_dist.cli.options import console, json_option, overrides_option
from grpo_dist.text import two_decimals


@click.command()
@click.argument("config")
@overrides_option
@json_option
def rewards(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Try the rewards of CONFIG.

    On the real data, template and tokenizer they judge right answers, wrong, malformed, truncated, empty and repeated
    ones, each function in a process of its own and with a time-out; with rewards.preflight_samples also what the
    untrained model writes. evaluation.scorer, the judge of the comparison, is tried on right and wrong answers too. A
    run does the same first.

    Exit 1 when something is wrong that rewards.allow does not name.
    """
    from grpo_dist.config import load_config
    from grpo_dist.findings import Finding, any_error
    from grpo_dist.launch.commands import preflight
    from grpo_dist.launch.process import Interrupted
    from grpo_dist.progress import Terminal

    run_config = load_config(config, overrides)
    try:
        report = preflight(run_config, Terminal())
    except Interrupted as stop:
        raise click.exceptions.Exit(128 + stop.signum) from stop
    found = [Finding(**finding) for finding in report["findings"]]
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report, found)
    if any_error(found):
        raise click.exceptions.Exit(1)


def _print(report: dict[str, Any], found: list[Any]) -> None:
    from rich.table import Table

    from grpo_dist.cli.views import print_findings

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("completion")
    for name in (*report["functions"], "sum"):
        table.add_column(name.rpartition(":")[2], justify="right")
    for case, paid in report["cases"].items():
        table.add_row(case, *(two_decimals(value) for value in (*paid["functions"].values(), paid["total"])))
    speeds = (f"{1000 * one['seconds_per_completion']:.3g} ms" for one in report["functions"].values())
    table.add_row("longest, each", *speeds, "")
    screen = console()
    screen.print(table)
    prefilled = f"; the template prefills {report['prefilled']}" if report["prefilled"] else ""
    screen.print(f"{report['problems']} problems; gold is written with {report['form']}{prefilled}", markup=False)
    if report["scorer"]:
        screen.print(_scored(report["scorer"]), markup=False)
    if found:
        print_findings(found, screen)
    else:
        screen.print("nothing found against these rewards")


def _scored(scorer: dict[str, Any]) -> str:
    found = scorer["found_right"]
    parts = (
        f"{one['right']} of {one['of']} {name} answers" for name, one in found.items() if name in ("gold", "wrong")
    )
    return f"evaluation.scorer {scorer['name']} finds right: {', '.join(parts)}"
