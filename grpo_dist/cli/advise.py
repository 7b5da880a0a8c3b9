"""`grpo-dist advise`: reinforcement fine-tuning, supervised, or preference tuning."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from grpo_dist.cli import options
from grpo_dist.cli.options import console, json_option, overrides_option

if TYPE_CHECKING:
    from grpo_dist.advice.look import Seen
    from grpo_dist.advice.tree import Advice, Step
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
    from grpo_dist.advice.tree import label_answer

    if config is None and (samples or overrides):
        raise click.UsageError(f"{'--samples' if samples else '--set'} needs a configuration: --config CONFIG")
    stated = _stated(config, data, overrides)
    seen = _look(stated, data, answer)
    stated_facts = {
        "labels": None if labels is None else label_answer(labels),
        "verifiable": _word(verifiable),
        "reasoning": _word(reasoning),
        "base": base,
    }
    known = (seen.facts() if seen else {}) | {fact: word for fact, word in stated_facts.items() if word is not None}
    measured: dict[str, Any] | None = None
    while not _is_advice(found := _decide(known)):
        if found.fact != "base":
            known[found.fact] = _ask(found)
        elif samples:
            measured = _measure(stated, samples, problems)
            known["base"] = _succeeds(measured)
        else:
            known["base"] = "unknown"
    if as_json:
        click.echo(json.dumps(_to_json(found, known, seen, measured), indent=2, ensure_ascii=False))
        return
    if samples and measured is None:
        click.echo("the model was not asked: the advice does not depend on what it answers", err=True)
    _print(found, seen, measured)


def _stated(config: str | None, data: str | None, overrides: tuple[str, ...]) -> RunConfig | None:
    from grpo_dist.cli.compare import data_settings
    from grpo_dist.config import load_config

    return None if config is None else load_config(config, (*data_settings(data), *overrides))


def _look(stated: RunConfig | None, data: str | None, answer: str | None) -> Seen | None:
    """None where there is nothing to look at."""
    from grpo_dist.advice.look import look
    from grpo_dist.config.data import DataSection

    if stated is not None:
        return look(stated.data, stated.grpo.seed, answer)
    if data is None and answer is not None:
        raise click.UsageError("--answer names a column of which data? give --data or --config too")
    return None if data is None else look(DataSection(name_or_path=data), 0, answer)


def _decide(known: dict[str, str]) -> Advice | Step:
    from grpo_dist.advice.tree import decide

    return decide(known)


def _is_advice(found: Advice | Step) -> bool:
    from grpo_dist.advice.tree import Advice

    return isinstance(found, Advice)


def _word(flag: bool | None) -> str | None:
    return None if flag is None else "yes" if flag else "no"


def _ask(step: Step) -> str:
    """The person's answer; a UsageError that names the options where nobody sits at a terminal."""
    from grpo_dist.advice.tree import label_answer

    if not options.at_a_terminal():
        raise click.UsageError(f"{step.question} Not known, and nobody to ask: give {OPTIONS[step.fact]}")
    if step.fact == "labels":
        return label_answer(click.prompt(step.question, type=click.IntRange(0), err=True))
    return _word(click.confirm(step.question, default=None, err=True))


def _measure(stated: RunConfig, samples: int, problems: int) -> dict[str, Any]:
    """What `samples` completions of some of the problems come to."""
    import shutil
    import tempfile
    from pathlib import Path

    from grpo_dist.cli.stopping import until_stopped
    from grpo_dist.cluster.filter import as_in_training, pass_rates
    from grpo_dist.errors import LaunchError, RolloutError
    from grpo_dist.evaluation.pass_rates import default_band, overview
    from grpo_dist.progress import Terminal
    from grpo_dist.run_directory import RunDirectory

    few = as_in_training(stated, samples)
    limit = min(problems, few.data.max_samples or problems)
    few = few.model_copy(update={"data": few.data.model_copy(update={"max_samples": limit})})
    place = Path(tempfile.mkdtemp(prefix="grpo-dist-advise-"))
    try:
        with until_stopped():
            found = pass_rates(few, RunDirectory(place / "work"), Terminal(), command="advise")
    except (LaunchError, RolloutError):
        raise  # its words name a log in there
    except BaseException:
        shutil.rmtree(place)
        raise
    shutil.rmtree(place)
    return overview(found, default_band(samples))


def _succeeds(measured: dict[str, Any]) -> str:
    if measured["pass_at_k"] == 0:
        return "never"
    return "always" if measured["mean_pass_rate"] == 1 else "sometimes"


def _to_json(
    found: Advice, known: dict[str, str], seen: Seen | None, measured: dict[str, Any] | None
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "advice": found.name,
        "title": found.outcome.title,
        "reasons": [asdict(reason) for reason in found.reasons],
        "facts": known,
        "data": seen and seen.to_dict(),
        "base": measured,
        "next": list(found.outcome.next),
    }


def _print(found: Advice, seen: Seen | None, measured: dict[str, Any] | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from grpo_dist.report.numbers import percent

    screen = console()
    if seen:
        screen.print(Text(f"data     {_told(seen)}"))
    if measured:
        k = measured["samples"]
        screen.print(
            Text(
                f"base     {percent(measured['mean_pass_rate'])} of its completions right (pass@1), pass@{k} "
                f"{percent(measured['pass_at_k'])}, {measured['kept']:,} of {measured['problems']:,} problems between"
            )
        )
    sources = list(dict.fromkeys(reason.source for reason in found.reasons))
    table = Table.grid(padding=(0, 2))
    for reason in found.reasons:
        why = f"{reason.why} [{sources.index(reason.source) + 1}]"
        table.add_row(reason.question, Text(reason.answer, style="bold"), Text(why))
    screen.print(table)
    screen.print(Text(f"\n{found.outcome.title}", style="bold"), Text(found.outcome.what), sep="\n")
    for step in found.outcome.next:
        screen.print(Text(f"  → {step}"))
    screen.print()
    for number, source in enumerate(sources, 1):
        screen.print(Text(f"[{number}] {source}", style="dim"), soft_wrap=True)


def _told(seen: Seen) -> str:
    """What was seen, in a sentence."""
    from grpo_dist.report.numbers import percent

    if not seen.labels:
        pairs = ", pairs of chosen and rejected answers" if seen.pairs else ""
        return f"{seen.rows:,} rows, no labels found{pairs}; --answer COLUMN names where they stand"
    names = {"number": "numbers", "mathematics": "mathematics", "short": "short texts", "text": "long texts"}
    examined = sum(seen.kinds.values())
    kinds = (f"{percent(count / examined, 0)} {names[kind]}" for kind, count in seen.kinds.items())
    final = f", data.answer_extractor {seen.extractor}" if seen.extractor != "none" else ""
    return f"{seen.rows:,} rows, {seen.labels:,} labels in {seen.answer_column!r}{final}: {', '.join(kinds)}"
