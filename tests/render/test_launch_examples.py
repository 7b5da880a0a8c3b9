"""The examples under launch/, and slurm/grpo.sh, are what the commands of launch/render.sh write."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from grpo_dist.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    shlex.split(line)
    for line in (ROOT / "launch" / "render.sh").read_text().splitlines()
    if line.startswith("grpo-dist render")
]


def target(command: list[str]) -> str:
    return command[command.index("--output" if "--output" in command else "--script") + 1]


@pytest.mark.parametrize("command", COMMANDS, ids=target)
def test_an_example_is_what_its_command_writes(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, [*command[1:], "--check"])
    assert result.exit_code == 0, f"{result.output}\nall of them: launch/render.sh"


def test_every_example_has_its_command():
    there = {f"launch/{path.name}" for path in (ROOT / "launch").iterdir() if path.is_dir()}
    assert {*there, "slurm/grpo.sh"} == {target(command) for command in COMMANDS}


def test_an_example_does_not_depend_on_this_machine():
    for path in [*(ROOT / "launch").rglob("*"), ROOT / "slurm" / "grpo.sh"]:
        if path.is_file():
            assert str(Path.home()) not in path.read_text(), path
            assert str(ROOT) not in path.read_text(), path
