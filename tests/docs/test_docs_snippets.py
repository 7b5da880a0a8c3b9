"""What the documentation shows is so: configurations load and plan, commands exist, transcripts are those of today."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from documentation import ROOT, Block, blocks, commands, spans

from grpo_dist.cli import main
from grpo_dist.config import RunConfig, load_config, load_site
from grpo_dist.config.messages import lookup
from grpo_dist.plan import plan_run
from grpo_dist.rewards.names import check_reward_names

SECTIONS = "|".join(RunConfig.model_fields)
SETTING = re.compile(rf"((?:{SECTIONS})(?:\.[a-z_]+)+)(?:: .*)?")
NO_SETTINGS = {"model.generate"}
"""Written like one."""
FILES = (".jsonl", ".json", ".yaml", ".parquet", ".py")
EMBEDDED = {"model": {"name_or_path": "embedded"}, "data": {"name_or_path": "embedded"}}
NEEDS_A_RUN = ("make demo", "grpo-dist export", "grpo-dist plan configs/tiny-cpu.yaml --calibrate")
LOADS_TORCH = ("grpo-dist rewards",)

configurations = pytest.mark.parametrize("block", blocks("yaml"), ids=str)


def known(setting: str) -> bool:
    path = tuple(int(key) if key.isdecimal() else key for key in setting.split("."))
    return lookup(path)[0] == path


@configurations
def test_a_configuration_loads_and_plans(block: Block, tmp_path, monkeypatch):
    """A whole one; sections, with the embedded model and data for those that are not shown; a site's settings."""
    shown = yaml.safe_load(block.text)
    path = tmp_path / "shown.yaml"
    if not shown.keys() <= RunConfig.model_fields.keys():
        path.write_text(block.text)
        monkeypatch.setenv("GRPO_DIST_SITE", str(path))
        assert load_site().model_fields_set == shown.keys()
        return
    missing = {key: value for key, value in EMBEDDED.items() if key not in shown}
    path.write_text((yaml.safe_dump(missing) if missing else "") + block.text)
    config = load_config(path)
    assert check_reward_names(config.rewards.functions) == []
    assert plan_run(config).batch.num_processes >= 1


def test_the_tour_shows_the_shipped_configuration():
    shown = next(block.text for block in blocks("yaml") if block.page == "docs/tour.md")
    assert shown == (ROOT / "configs" / "tiny-cpu.yaml").read_text()


def test_settings_that_are_named_exist():
    named = {found[1] for _, span in spans() if (found := SETTING.fullmatch(span)) and not span.endswith(FILES)}
    assert {"rollout.canary_steps", "cluster.max_requeues"} <= named
    assert [setting for setting in sorted(named - NO_SETTINGS) if not known(setting)] == []


def test_commands_exist_with_their_options():
    shown = list(commands())
    assert {"run", "plan", "sweep", "export"} <= {arguments[0] for _, arguments, _ in shown if arguments}
    wrong = [
        f"{page}: {' '.join(arguments)}: {why}"
        for page, arguments, whole in shown
        if (why := refused(arguments, whole))
    ]
    assert wrong == []


def refused(arguments: list[str], whole: bool) -> str | None:
    """Why the program would not take the arguments, None when it would; nothing is run and no file is looked for."""
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        command = command.get_command(context, name)
        if command is None:
            return f"there is no {name}"
        context = click.Context(command, parent=context)
    try:
        stated, further, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        return error.message
    if further:
        return f"takes no {further}"
    settings = [override.partition("=")[0] for override in stated.get("overrides") or ()]
    if unknown := [setting for setting in settings if not known(setting)]:
        return f"there is no setting {unknown}"
    missing = [param.name for param in command.params if param.required and not stated.get(param.name)]
    return f"needs {missing}" if whole and missing else None


def test_a_wrong_command_would_be_found():
    assert refused(["lauch"], True) == "there is no lauch"
    assert refused(["plan", "x.yaml", "--gpus", "2"], True)
    assert refused(["run", "x.yaml", "--set", "grpo.group=2"], True) == "there is no setting ['grpo.group']"
    assert refused(["export", "runs/x"], True) == "needs ['to']"
    assert refused(["run"], False) is None


def test_targets_of_make_exist():
    named = {span.split()[1] for _, span in spans() if re.fullmatch(r"make [a-z]+", span)}
    named |= {found for block in blocks("") for found in re.findall(r"^ *make ([a-z]+)", block.text, re.MULTILINE)}
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "docs"} <= named
    assert [target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def lines_of(block: Block) -> list[tuple[str, str]]:
    """(command, what it prints) one after the other."""
    parts = re.split(r"^\$ (.+)\n", block.text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def pattern(transcript: str) -> str:
    """A line that is `…` stands for any lines."""
    lines = (r"(?:.*\n)*?" if line == "…" else re.escape(line.rstrip()) + r"\n" for line in transcript.splitlines())
    return "".join(lines)


def follow(block: Block, directory: Path) -> None:
    """Type what the block shows, in a directory with the shipped configurations."""
    shutil.copytree(ROOT / "configs", directory / "configs")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HOME": str(directory), "HF_HOME": str(directory), "COLUMNS": "140"}
    environment.pop("GRPO_DIST_SITE", None)
    for command, shown in lines_of(block):
        ended = subprocess.run(
            ["bash", "-c", command], cwd=directory, env=environment, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        printed = "".join(f"{line.rstrip()}\n" for line in ended.stdout.splitlines())
        assert re.fullmatch(pattern(shown), printed), f"{command} printed\n{printed}"


def begins(block: Block, commands: tuple[str, ...]) -> bool:
    return lines_of(block)[0][0].startswith(commands)


@pytest.mark.parametrize("block", [b for b in blocks("console") if not begins(b, NEEDS_A_RUN + LOADS_TORCH)], ids=str)
def test_a_transcript_is_that_of_today(block: Block, tmp_path):
    follow(block, tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize("block", [b for b in blocks("console") if begins(b, LOADS_TORCH)], ids=str)
def test_a_transcript_with_the_training_stack_is_that_of_today(block: Block, tmp_path):
    follow(block, tmp_path)


def test_the_reward_that_is_shown_pays(tmp_path):
    (block,) = blocks("python")
    scope: dict = {}
    exec(block.text, scope)
    short, long = ([{"role": "assistant", "content": "x" * length}] for length in (10, 400))
    assert scope["brevity"](["?"] * 2, [short, long], target=200, answer=["1", "2"]) == [1.0, 0.5]
