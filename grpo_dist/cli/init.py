"""`grpo-dist init`: a configuration to start from, for the user's own model, data and GPUs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grpo_dist.cli.options import at_a_terminal

if TYPE_CHECKING:
    from grpo_dist.config.sections import SourceSection

TINY, STARTER = "tiny-cpu.yaml", "starter.yaml"
MODEL, DATA = "Qwen/Qwen3-0.6B-Base", "openai/gsm8k"
"""Those of the starter."""
ON_VLLM = {("rollout", "backend"): "vllm"}
"""It needs far less memory to generate a batch than Transformers does at once."""
ENOUGH = 0.9
"""Share of the answers in which an extractor finds one."""
HYBRID = re.compile(r"qwen3-[\d.]+b(-a\d+b)?", re.IGNORECASE)
"""Models that think unless their template is told not to."""
Changes = dict[tuple[str, str], Any]
"""(section, setting) → its value; None removes the line."""


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("grpo.yaml"))
@click.option("--model", metavar="MODEL", help="Hub id or local directory of the model.")
@click.option("--data", metavar="DATA", help="Hub id, or JSONL, JSON, CSV or Parquet: a file, a glob or a directory.")
@click.option("--task", metavar="TASK", help="A task that `grpo-dist tasks` lists, with its data and rewards.")
@click.option("--algorithm", metavar="NAME", help="The settings of a paper: grpo, dr_grpo, dapo, gspo or cispo.")
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="GPUs of this machine to use; 0 trains on the CPU.")
@click.option("--tiny", is_flag=True, help="The example that trains in minutes on a CPU and downloads nothing.")
def init(
    path: Path,
    model: str | None,
    data: str | None,
    task: str | None,
    algorithm: str | None,
    gpus: int | None,
    tiny: bool,
) -> None:
    """Write a commented configuration to PATH.

    With --model, --data and --gpus it is one for them: the columns, the form of the answers and the splits are read
    from local data, the chat template follows from the model. At a terminal, what is not given is asked for.
    An existing file is left alone.
    """
    from importlib import resources

    if task and data:
        raise click.UsageError("--task has its own data; leave one out")
    start = _of_start(task, algorithm)
    data = data or start.get(("data", "name_or_path"))
    stated = (model, data, gpus)
    if tiny and (start or stated != (None, None, None)):
        raise click.UsageError("--tiny has its own model and data; leave one out")
    text = resources.files("grpo_dist.config").joinpath("starters", TINY if tiny else STARTER).read_text("utf-8")
    if not tiny and not path.exists() and (start or stated != (None, None, None) or at_a_terminal()):
        model, data, gpus = _asked(*stated) if at_a_terminal() else (model or MODEL, data or DATA, gpus)
        text = edited(text, {**_of_model(model), **({} if task else _of_data(data)), **start, **_of_gpus(gpus)})
        if not _fits(text) and _fits(on_vllm := edited(text, ON_VLLM)):
            text = on_vllm
    _write_new(path, text)
    click.echo(f"{path} written; next: grpo-dist {'run' if tiny else 'plan'} {shlex.quote(str(path))}")
    if not tiny:
        _tell_lacks(path)


def _asked(model: str | None, data: str | None, gpus: int | None) -> tuple[str, str, int]:
    return (
        model or click.prompt("model (Hub id or directory)", default=MODEL, err=True),
        data or click.prompt("data (Hub id, file, glob or directory)", default=DATA, err=True),
        click.prompt("GPUs of this machine (0: train on the CPU)", type=click.IntRange(0), default=1, err=True)
        if gpus is None
        else gpus,
    )


def _of_start(task: str | None, algorithm: str | None) -> Changes:
    from grpo_dist.config import starts
    from grpo_dist.text import closest

    if algorithm and algorithm not in starts.ALGORITHMS:
        close = closest(algorithm, starts.ALGORITHMS)
        meant = f"did you mean {close}?" if close else f"there is {', '.join(starts.ALGORITHMS)}"
        raise click.UsageError(f"--algorithm: no {algorithm!r}; {meant}")
    return {
        **(starts.task(task).changes if task else {}),
        **(starts.ALGORITHMS[algorithm].changes if algorithm else {}),
    }


def edited(text: str, changes: Mapping[tuple[str, str], Any]) -> str:
    """A YAML text of two levels with these settings; a changed line keeps its comment, a new one ends its section.

    What stands below a changed line, further in, is left out.
    """
    left, section, lines, changed = dict(changes), "", [], False
    for line in [*text.splitlines(), "end:"]:
        if changed and line.startswith("    "):
            continue
        changed = False
        if not line.strip() or re.match(r"[a-z]+:", line):
            new = [key for key in left if key[0] == section]
            lines += [f"  {key[1]}: {_flow(value)}" for key in new if (value := left.pop(key)) is not None]
            section = line.partition(":")[0]
        key = (section, line.strip().partition(":")[0])
        if line.startswith("  ") and not line.startswith("   ") and key in left:
            value, (_, mark, comment), changed = left.pop(key), line.partition(" #"), True
            if value is None:
                continue
            line = f"  {key[1]}: {_flow(value)}{mark}{comment}"
        lines.append(line)
    return "\n".join(lines[:-1]) + "\n"


def _flow(value: Any) -> str:
    import yaml

    return (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
        .removesuffix("...\n")
        .strip()
    )


def _of_model(name: str) -> Changes:
    """The model's own chat template if it has one; thinking is off, which otherwise takes up the completion."""
    template = _template_of(name)
    own = "base" not in Path(name).name.lower() if template is None else bool(template)
    changes: Changes = {("model", "name_or_path"): name, ("data", "chat_template"): "tokenizer" if own else "recipe"}
    thinks = "enable_thinking" in template if template else HYBRID.fullmatch(Path(name).name)
    if own and thinks:
        changes["grpo", "chat_template_kwargs"] = {"enable_thinking": False}
    return changes


def _template_of(name: str) -> str | None:
    """The chat template of a model, "" if it has none; None if its tokenizer is neither in a directory nor cached."""
    from os import environ

    from grpo_dist.plan.specs.lookup import hub_repository

    snapshots = hub_repository(environ, name).glob("snapshots/*") if "/" in name else ()
    places = [place for place in (Path(name).expanduser(), *snapshots) if (place / "tokenizer_config.json").is_file()]
    if not places:
        return None
    found = [place / file for place in places for file in ("chat_template.jinja", "tokenizer_config.json")]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in found if file.is_file()]
    return next((text for text in texts if "chat_template" in text or "{%" in text), "")


def _of_gpus(number: int | None) -> Changes:
    if number is None:
        return {}
    changes: Changes = {("cluster", "gpus_per_node"): number}
    return changes if number else {**changes, ("cluster", "gpu"): None, ("model", "dtype"): "float32"}


def _of_data(name: str) -> Changes:
    """What a known data set, or the first rows of a local one, need to be read."""
    from grpo_dist.config.known_data import KNOWN_DATA
    from grpo_dist.config.sections import SourceSection
    from grpo_dist.data.readers import find_files, first_rows_of, is_local
    from grpo_dist.data.sources import is_saved_to_disk
    from grpo_dist.errors import ConfigError, DataError

    if name == DATA:
        return {}
    unset = dict.fromkeys(("config", "columns", "answer_extractor", "eval_split"))
    changes: Changes = {("data", "name_or_path"): name, **{("data", key): None for key in unset}}
    if name in KNOWN_DATA:
        return changes
    changes["data", "eval_fraction"] = 0.1
    if not is_local(name) or is_saved_to_disk(Path(name).expanduser()):
        return changes
    source = SourceSection(name_or_path=name)
    try:
        files = find_files(source)
        rows = first_rows_of(next(iter(files.values()))[0], 50)
    except DataError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    others = (split for split in ("test", "validation") if split in files and files[split] != files.get("train"))
    held = next(others, None)
    if held and "train" in files:
        changes |= {("data", "eval_split"): held, ("data", "eval_fraction"): None}
    return changes | _of_rows(source, rows)


def _of_rows(source: SourceSection, rows: list[dict[str, Any]]) -> Changes:
    from grpo_dist.data.columns import guess_column, leaves

    if not rows:
        return {}
    there = list(dict.fromkeys(path for name, value in rows[0].items() for path in leaves(name, value)))
    guessed = {ours: ours if ours in rows[0] else guess_column(ours, ours, there) for ours in ("prompt", "answer")}
    columns = {ours: theirs for ours, theirs in guessed.items() if theirs and ours != theirs}
    changes: Changes = {("data", "columns"): columns} if columns else {}
    extractor = _extractor(rows, (guessed["answer"] or "answer").split("."))
    return changes if extractor == "none" else {**changes, ("data", "answer_extractor"): extractor}


def _extractor(rows: list[dict[str, Any]], path: list[str]) -> str:
    """How the answer is written in its column."""
    from grpo_dist.data.columns import cell_at
    from grpo_dist.data.problems import EXTRACTORS

    texts = [text for row in rows if isinstance(text := cell_at(row, path), str)]
    for name in ("gsm8k", "boxed"):
        if texts and sum(EXTRACTORS[name](text) is not None for text in texts) >= ENOUGH * len(texts):
            return name
    return "none"


def _fits(text: str) -> bool:
    """Whether the planner finds enough memory for a configuration; it is silent about a model it knows nothing of."""
    import yaml

    from grpo_dist.config.sections import RunConfig
    from grpo_dist.errors import PlanError
    from grpo_dist.plan import plan_run

    try:
        plan_run(RunConfig.model_validate(yaml.safe_load(text)))
    except (PlanError, ValueError) as error:
        return "does not fit" not in str(error)
    return True


def _tell_lacks(path: Path) -> None:
    """Tell what the written configuration cannot say for the user, such as a column nobody can guess."""
    from grpo_dist.config import load_config
    from grpo_dist.data.early import check_early
    from grpo_dist.errors import PlanError

    try:
        check_early(load_config(path))
    except PlanError as error:
        click.echo(f"to be settled first: {error}", err=True)


def _write_new(path: Path, text: str) -> None:
    from grpo_dist.errors import ConfigError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{path}: already exists", hint="grpo-dist init OTHER-NAME.yaml") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: cannot be written: {reason}", hint="grpo-dist init OTHER-PATH.yaml") from error
