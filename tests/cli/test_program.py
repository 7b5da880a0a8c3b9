from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click import Context
from click.testing import CliRunner

from grpo_dist import __version__
from grpo_dist.cli import main

HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "vllm",
    "deepspeed",
    "unsloth",
    "numpy",
    "pandas",
}


def modules_after(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(json.loads(output.splitlines()[-1]))


def test_the_program_imports_nothing_heavy():
    loaded = modules_after(
        "from grpo_dist.cli import main\n"
        "from click.testing import CliRunner\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0"
    )
    assert not loaded & (HEAVY | {"pydantic", "yaml", "jinja2", "rich"})


def test_a_command_does_not_wait_for_the_others():
    code = (
        "import sys; from grpo_dist.cli import main; main(['plan', '--help'], standalone_mode=False)\n"
        "assert 'grpo_dist.cli.plan' in sys.modules and 'grpo_dist.cli.export' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_planning_imports_nothing_heavy():
    loaded = modules_after(
        "from grpo_dist.launch import local\n"
        "from grpo_dist.plan import plan_run\n"
        "from grpo_dist.report.record import read_run"
    )
    assert not loaded & HEAVY


NEEDLESS = {"rich", "jinja2", "asyncio", "subprocess", "multiprocessing", "click.testing"}


@pytest.mark.parametrize(
    ("arguments", "besides"),
    [
        (("plan", "CONFIG"), {"grpo_dist.report.html", "grpo_dist.launch", "grpo_dist.slurm", "grpo_dist.rewards"}),
        (("plan", "CONFIG", "--json"), {"grpo_dist.cli.columns"}),
        (("scale", "CONFIG", "--nodes", "1,2"), {"grpo_dist.report.html", "grpo_dist.launch", "grpo_dist.slurm"}),
    ],
)
def test_planning_imports_only_what_it_needs(tmp_path, arguments, besides):
    """Half of its processor time is imports, so a list of modules holds it and not a clock."""
    config = tmp_path / "config.yaml"
    config.write_text("{model: {name_or_path: Qwen/Qwen3-4B}, data: {name_or_path: a/b}, cluster: {gpus_per_node: 8}}")
    typed = [str(config) if word == "CONFIG" else word for word in arguments]
    assert imported_by(*typed).isdisjoint(NEEDLESS | besides)


@pytest.mark.parametrize("command", ["status", "logs"])
def test_looking_at_a_run_imports_no_planner(tmp_path, command):
    assert imported_by(command, str(tmp_path)).isdisjoint({"pydantic", "jinja2", "grpo_dist.plan", "grpo_dist.launch"})


def imported_by(*arguments: str) -> set[str]:
    """Names of all modules that a command has imported when it ends."""
    code = (
        "import sys, json\nfrom grpo_dist.cli import main\nsys.stdout = sys.stderr\n"
        "try: main(sys.argv[1:], standalone_mode=False)\nexcept Exception: pass\n"
        "print(json.dumps(list(sys.modules)), file=sys.__stdout__)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_commands_are_these():
    result = CliRunner().invoke(main, ["--help"])
    assert set(main.list_commands(Context(main))) == {
        *("advise", "init", "config", "plan", "scale", "render", "rewards", "filter", "doctor", "prefetch"),
        *("run", "checkpoint", "serve", "submit", "sweep", "status", "logs", "cancel"),
        *("report", "compare", "export"),
    }
    for name in main.list_commands(Context(main)):
        assert f"\n  {name} " in result.output
    assert "..." not in result.output.partition("Commands:")[2], "what a command is for is cut off"


def test_python_dash_m_is_the_program():
    result = subprocess.run(
        [sys.executable, "-m", "grpo_dist", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[-1] == __version__


def test_an_unknown_command_exits_2():
    assert CliRunner().invoke(main, ["lauch"]).exit_code == 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("pln", "plan"), ("train", "run"), ("RUN", "run"), ("ps", "status"), ("confg", "config"), ("config shwo", "show")],
)
def test_a_mistyped_command_is_answered_with_the_one_meant(typed, meant):
    result = CliRunner().invoke(main, typed.split())
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: No such command {typed.split()[-1]!r}. Did you mean {meant!r}?\n")
