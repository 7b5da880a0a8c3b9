from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
import yaml
from click import Context
from click.testing import CliRunner
from rich.table import Table
from rich.text import Text

from grpo_dist import __version__
from grpo_dist.cli import main
from grpo_dist.cli.options import console
from grpo_dist.text import PrintableLog, printable_in_json

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


NEEDLESS = {"importlib.metadata", "rich", "jinja2", "asyncio", "subprocess", "multiprocessing", "click.testing"}


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
        *("advise", "tasks", "init", "config", "plan", "scale", "render"),
        *("rewards", "filter", "doctor", "prefetch"),
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


ESCAPE = "\x1b]0;taken\x07\x1b[2J\x9b2J\u202e"
FOREIGN = ("\x1b", "\x07", "\x9b", "\u202e")


def hostile_run(path):
    """A run whose every file has escape sequences."""
    attempt = path / "logs" / "attempt-1"
    attempt.mkdir(parents=True)
    (attempt / "train.log").write_text(f"\x1b[31mred\x1b[0m {ESCAPE}\r 1%\r 2%\r\nümläut\n")
    config = {"model": {"name_or_path": ESCAPE}, "grpo": {ESCAPE: ESCAPE}}
    (path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    (path / "plan.json").write_text(json.dumps({"run_name": ESCAPE, "max_steps": 3}))
    (path / "environment.json").write_text(json.dumps({"packages": {ESCAPE: ESCAPE}, "devices": [ESCAPE]}))
    (path / "failure.json").write_text(json.dumps({"cause": ESCAPE}))
    job = {"job_id": ESCAPE, "submitted": ESCAPE}
    (path / "job.json").write_text(json.dumps(job))


@pytest.mark.parametrize("command", ["status", "report", "logs", "compare", "export", "cancel"])
def test_escape_sequences_of_a_run_are_written_out(tmp_path, monkeypatch, command):
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("one", ESCAPE.replace("/", "")):
        hostile_run(tmp_path / name)
    for named in (tmp_path, *tmp_path.iterdir()):
        shown = CliRunner().invoke(main, [command, str(named)]).output
        assert shown
        assert not [one for one in FOREIGN if one in shown]


def test_what_an_exception_says_is_written_out(tmp_path):
    code = f"import grpo_dist.cli.report as r\ndef fail(**_): raise RuntimeError({ESCAPE!r})\n"
    code += "r.report.callback = fail\nfrom grpo_dist.cli import main; main(['report', 'x'])"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RuntimeError: \\x1b]0;taken" in failed.stderr
    assert not [one for one in FOREIGN if one in failed.stderr]


def test_a_table_on_a_terminal_has_our_colours_and_no_others(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = Table(ESCAPE)
    table.add_row(Text(ESCAPE, style="bold"))
    console().print(table, f"[bold]{ESCAPE}[/bold]", ESCAPE)
    assert "\x1b[1m" in stream.getvalue()
    assert not [one for one in ("\x1b]", "\x07", "\x9b", "\u202e") if one in stream.getvalue()]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_log_reads_the_same_however_it_is_cut_into_pieces(size):
    content = f"\x1b[31mred\x1b[0m {ESCAPE}\r\n 1%\r 2%\r\nümläut 中\x1b".encode() + b"\xff"
    log = PrintableLog()
    text = "".join(log.text(content[at : at + size]) for at in range(0, len(content), size)) + log.text(b"", last=True)
    assert text == "red \\x1b]0;taken\\x07\\x1b[2J\\x9b2J\\u202e\n 1%\n 2%\nümläut 中\\x1b\ufffd"


def test_json_stays_json_when_control_characters_are_written_out():
    text = "".join(map(chr, range(0x300))) + "\u2028\u202e\ud800"
    written = printable_in_json(json.dumps({"a": text}, ensure_ascii=False))
    assert json.loads(written) == {"a": text}


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    failed = CliRunner().invoke(main, ["init", str(tmp_path / "no" / "such" / "x.yaml")])
    assert failed.exit_code in (1, 2)
    assert failed.stderr.startswith(("Error: ", "Usage: "))


def test_an_interrupted_command_ends_as_the_exit_codes_say(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("grpo_dist.report.record.runs_below", interrupted)
    assert CliRunner().invoke(main, ["status", "runs"]).exit_code == 130
