"""`grpo-dist compare`: any models on the same problems."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grpo_dist.cli.options import console, json_option, overrides_option

if TYPE_CHECKING:
    from grpo_dist.run.checkpoints import ModelSource


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--checkpoints", is_flag=True, help="Each MODEL is a run: its base, then its checkpoints in order.")
@click.option("--data", metavar="DATA", help="Other problems: a file, a directory or a Hub id.  [default: held out]")
@click.option(
    "--run", "judge", type=click.Path(path_type=Path), metavar="RUN", help="Whose problems, settings and judge to take."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where to write JSON.")
@overrides_option
@json_option
def compare(
    models: tuple[str, ...],
    checkpoints: bool,
    data: str | None,
    judge: Path | None,
    output: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Let models answer the same problems, each against the first.

    \b
    A MODEL is
      base                     what the run started from
      RUN                      the trained model of a run directory
      RUN/checkpoints/…        a checkpoint of it
      DIR                      an export, or any model or adapter directory

    Problems, judge and sampling are those of the first MODEL's run that is known, or of --run; --set changes what
    is set under data and evaluation in its configuration. The numbers are those of the report: greedy accuracy,
    mean@k and pass@k with intervals, and paired differences.

    \b
    grpo-dist compare base runs/a runs/b
    grpo-dist compare runs/a --checkpoints             a learning curve
    grpo-dist compare base runs/a --data more.jsonl --set 'data.columns={prompt: question}'
    """
    from grpo_dist.cli.options import until_stopped
    from grpo_dist.evaluation.comparison import CompareRequest
    from grpo_dist.launch.local import run_alongside
    from grpo_dist.progress import Terminal
    from grpo_dist.run.directory import read_json

    sources = _sources(models, checkpoints, judge)
    run = _judge(sources, judge)
    settings = (*data_settings(data), *overrides)
    _check_settings(run, settings)
    result = (output or run / "comparisons" / _file_name(sources, settings)).absolute()
    other = any(setting.lstrip().startswith("data") for setting in settings)
    request = CompareRequest(str(run), tuple(sources), settings, other, str(result))
    with until_stopped():
        run_alongside(
            "grpo_dist.training.stages.compare_any", request.to_json(), run=run, result=result, terminal=Terminal()
        )
    found = read_json(result)
    if as_json:
        click.echo(json.dumps({"file": str(result), **found}, indent=2, ensure_ascii=False))
        return
    from grpo_dist.cli.views import print_models

    print_models(found, console())
    click.echo(f"written to {output or result}")


def _sources(models: tuple[str, ...], checkpoints: bool, judge: Path | None) -> list[ModelSource]:
    """The models to compare, in order.

    Raises:
        ModelError: a path is no model.
        UsageError: there are fewer than two models.
    """
    from grpo_dist.run.checkpoints import BASE, base_of, checkpoints_of, disambiguate, find_model

    if checkpoints:
        found = [source for name in models if name != BASE for source in checkpoints_of(Path(name))]
        if not found:
            raise click.UsageError("--checkpoints needs a run: grpo-dist compare RUN --checkpoints")
        return disambiguate([base_of(judge or Path(found[0].run)), *found])
    named = [None if name == BASE else find_model(Path(name)) for name in models]
    run = judge or next((Path(source.run) for source in named if source and source.run), None)
    if None in named and run is None:
        raise click.UsageError("base of which run? name one of its models, or with --run RUN")
    sources = disambiguate([source or base_of(run) for source in named])
    if len(sources) < 2:
        raise click.UsageError(f"one model is nothing to compare; for example: grpo-dist compare base {models[0]}")
    return sources


def _judge(sources: list[ModelSource], judge: Path | None) -> Path:
    """The run whose problems, settings and scorer are used."""
    from grpo_dist.run.checkpoints import check_run

    known = judge or next((Path(source.run) for source in sources if source.run), None)
    if known is None:
        raise click.UsageError("none of these models comes from a run that is there; name one: --run RUN")
    check_run(known)
    return known.absolute()


def data_settings(data: str | None) -> tuple[str, ...]:
    """The settings that --data stands for. Settings that select rows of the run's own data are reset.

    So are columns and answer extractor, if those of the other data are known.
    """
    from grpo_dist.config.known_data import KNOWN_DATA

    if data is None:
        return ()
    known = KNOWN_DATA.get(data)
    settings = [f"data.name_or_path={json.dumps(data)}", f"data.split={known.split if known else 'train'}"]
    settings += [f"data.{name}=null" for name in ("config", "revision", "eval_split", "like")]
    if known:
        settings += ["data.columns={}", f"data.answer_extractor={known.answer_extractor}"]
    return tuple(settings)


def _check_settings(run: Path, settings: tuple[str, ...]) -> None:
    """Check the settings before a process is started.

    Raises:
        ConfigError: a setting is wrong, or belongs to neither data nor evaluation.
    """
    from grpo_dist.config import load_config
    from grpo_dist.errors import ConfigError
    from grpo_dist.launch.checks import check_reward_settings
    from grpo_dist.run.directory import RunDirectory

    for setting in settings:
        if setting.partition("=")[0].strip().partition(".")[0] not in ("data", "evaluation"):
            raise ConfigError(
                f"--set {setting}: a comparison takes settings of data and evaluation; the rest is the run's",
                hint="for example: --set evaluation.num_samples=16",
            )
    check_reward_settings(load_config(RunDirectory(run).config, settings))


def _file_name(sources: list[ModelSource], settings: tuple[str, ...]) -> str:
    """`base-against-tiny-cpu-1f2e3d4c.json`: the same comparison always has the same name."""
    first, *others = (Path(source.name).name for source in sources)
    asked = json.dumps([[(source.kind, source.path) for source in sources], settings])
    against = others[0] if len(others) == 1 else len(others)
    return f"{first}-against-{against}-{sha256(asked.encode()).hexdigest()[:8]}.json"
