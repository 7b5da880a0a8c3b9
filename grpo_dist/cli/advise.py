"""`grpo-dist advise`: reinforcement fine-tuning, supervised fine-tuning or preference tuning?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from grpo_dist.cli import options
from grpo_dist.cli.options import console, json_option, overrides_option

if TYPE_CHECKING:
    from grpo_dist.advice.look import Seen
    from grpo_dist.advice.rules import Step
    from grpo_dist.config import RunConfig

OPTIONS = {
    "labels": "--labels N",
    "verifiable": "--verifiable or --not-verifiable",
    "reasoning": "--reasoning or --no-reasoning",
}
"""Question → the options that answer it."""


@click.command()
@click.option("--data", metavar="DATA", help="Look at a data set: a file, a directory or a Hub id.")
@click.option("--answer", metavar="COLUMN", help="Column with the labels.  [default: found by its name]")
@click.option("--config", metavar="CONFIG", help="Whose data to look at, and whose model to ask.")
@click.option("--samples", type=click.IntRange(2), metavar="K", help="Ask the model of CONFIG K times per problem.")
@click.option(
    "--problems", type=click.IntRange(1), default=64, show_default=True, metavar="N", help="Problems it gets."
)
@click.option("--labels", type=click.IntRange(0), metavar="N", help="Labelled examples there are; 0 for none.")
@click.option("--verifiable/--not-verifiable", default=None, help="Whether a program can tell right from wrong.")
@click.option("--reasoning/--no-reasoning", default=None, help="Whether reasoning makes answers much better.")
@click.option("--base", type=click.Choice(["never", "sometimes", "always"]), help="How often the base model succeeds.")
@overrides_option
@json_option
def advise(
    data: str | None,
    answer: str | None,
    config: str | None,
    samples: int | None,
    problems: int,
    labels: int | None,
    verifiable: bool | None,
    reasoning: bool | None,
    base: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say whether a task calls for RFT, SFT or preference tuning.

    What decides: how many labels there are, whether a program can check an answer, whether reasoning helps, and
    whether the base model sometimes succeeds. A data set answers some of it, --samples the last; options come before
    both. What is still open is asked on a terminal.

    \b
    grpo-dist advise --data problems.jsonl
    grpo-dist advise --config my.yaml --samples 8
    grpo-dist advise --labels 0 --verifiable
    """
    from grpo_dist.advice.rules import Step, decide, label_answer
    from grpo_dist.cli.views import advice_json, describe_data, print_advice

    if config is None and (samples or overrides):
        raise click.UsageError(f"{'--samples' if samples else '--set'} needs a configuration: --config CONFIG")
    run_config = _load(config, data, overrides)
    seen = _look(run_config, data, answer)
    given_facts = {
        "labels": None if labels is None else label_answer(labels),
        "verifiable": _yes_or_no(verifiable),
        "reasoning": _yes_or_no(reasoning),
        "base": base,
    }
    known = (seen.facts() if seen else {}) | {fact: word for fact, word in given_facts.items() if word is not None}
    measured: dict[str, Any] | None = None
    asks = isinstance(decide({"base": "unknown"} | known), Step)
    if seen and asks:
        click.echo(f"data: {describe_data(seen)}", err=True)
    while isinstance(found := decide(known), Step):
        if found.fact != "base":
            known[found.fact] = _ask(found)
        elif samples:
            measured = _measure(run_config, samples, problems)
            known["base"] = _success(measured)
        else:
            known["base"] = "unknown"
    if as_json:
        click.echo(json.dumps(advice_json(found, known, seen, measured), indent=2, ensure_ascii=False))
        return
    if samples and measured is None:
        click.echo("the model was not asked: the advice does not depend on what it answers", err=True)
    print_advice(found, None if asks else seen, measured, console())


def _load(config: str | None, data: str | None, overrides: tuple[str, ...]) -> RunConfig | None:
    from grpo_dist.cli.compare import data_settings
    from grpo_dist.config import load_config

    return None if config is None else load_config(config, (*data_settings(data), *overrides))


def _look(run_config: RunConfig | None, data: str | None, answer: str | None) -> Seen | None:
    """What the data shows; None without data."""
    from grpo_dist.advice.look import look
    from grpo_dist.config.sections import DataSection

    if run_config is not None:
        return look(run_config.data, run_config.grpo.seed, answer)
    if data is None and answer is not None:
        raise click.UsageError("--answer names a column of which data? give --data or --config too")
    return None if data is None else look(DataSection(name_or_path=data), 0, answer)


def _yes_or_no(flag: bool | None) -> str | None:
    return None if flag is None else "yes" if flag else "no"


def _ask(step: Step) -> str:
    """Ask the user; without a terminal, a UsageError names the options that answer the question."""
    from grpo_dist.advice.rules import label_answer

    if not options.at_a_terminal():
        raise click.UsageError(f"{step.question} Not known, and nobody to ask: give {OPTIONS[step.fact]}")
    if step.fact == "labels":
        return label_answer(click.prompt(step.question, type=click.IntRange(0), err=True))
    return _yes_or_no(click.confirm(step.question, default=None, err=True))


def _measure(run_config: RunConfig, samples: int, problems: int) -> dict[str, Any]:
    """The pass rates of `samples` completions for some of the problems."""
    from grpo_dist.cli.options import until_stopped
    from grpo_dist.evaluation.pass_rates import default_band, overview
    from grpo_dist.launch.commands import few_pass_rates
    from grpo_dist.progress import Terminal

    with until_stopped():
        found = few_pass_rates(run_config, samples, problems, Terminal())
    return overview(found, default_band(samples))


def _success(measured: dict[str, Any]) -> str:
    if measured["pass_at_k"] == 0:
        return "never"
    return "always" if measured["mean_pass_rate"] == 1 else "sometimes"
