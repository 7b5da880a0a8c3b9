"""Damaged run directories: one clear error each, and never at the cost of the other runs."""

from __future__ import annotations

import errno
import fcntl
import json

import pytest
from click.testing import CliRunner
from synthetic_runs import make_run

from grpo_dist.cli import main
from grpo_dist.errors import RunDirectoryError
from grpo_dist.plan.launch import read_plan
from grpo_dist.run.directory import RunDirectory, is_locked, read_json

DEEP = "[" * 100_000
DAMAGE = {
    "no object": ("plan.json", "[1]"),
    "cut": ("plan.json", '{"batch": {'),
    "deep": ("plan.json", DEEP),
    "bytes": ("prepared.json", "\udcff\udcfe"),
    "deep YAML": ("config.yaml", DEEP),
    "a date that does not exist": ("config.yaml", "model: 2024-13-45\n"),
    "packages": ("environment.json", '{"packages": [1]}'),
    "backend": ("environment.json", '{"backend": "trl"}'),
    "comparison": ("comparison.json", '{"problems": {}}'),
    "deep comparison": ("comparison.json", DEEP),
    "a plan of text": ("plan.json", '{"max_steps": "many", "batch": 7, "topology": []}'),
    "integer": ("plan.json", json.dumps({"max_steps": 10**400})),
}


@pytest.fixture
def runs(tmp_path):
    for name in ("good", "bad"):
        make_run(tmp_path / name)
    return tmp_path


def invoke(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env={"PATH": "/nowhere"})


@pytest.mark.parametrize(("name", "text"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("command", ["status", "report"])
def test_a_damaged_run_is_named_and_does_not_hide_the_others(runs, command, name, text):
    (runs / "bad" / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    both, alone = invoke(command, runs, "--json"), invoke(command, runs / "bad")
    for found in (both, alone):
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    assert both.exit_code == 0
    assert "good" in both.stdout
    if alone.exit_code:
        assert str(runs / "bad") in alone.stderr
        assert "→" in alone.stderr


def test_lines_that_no_run_writes_are_left_out_of_the_metrics(runs):
    odd = [DEEP, json.dumps({"step": 10**400}), json.dumps({"step": 3, "time": 10**400, "reward": 1.0}), "null", "\x00"]
    (runs / "bad" / "metrics.jsonl").write_text("\n".join(odd) + "\n")
    for command in ("status", "report"):
        assert invoke(command, runs / "bad").exit_code == 0


def test_a_run_that_cannot_be_written_is_shown_on_the_terminal(runs, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("grpo_dist.report.html.write_html", refuse)
    found = invoke("report", runs / "good")
    assert found.exit_code == 0
    assert "cannot be written (Permission denied)" in found.stderr
    assert "report.html" not in found.stdout


@pytest.mark.parametrize("text", [None, "", "{", "[]", DEEP, "{}", '{"batch": 3}'])
def test_a_plan_that_cannot_be_used_says_how_to_write_it_anew(tmp_path, text):
    run = RunDirectory(tmp_path)
    if text is not None:
        run.plan.write_text(text)
    with pytest.raises(RunDirectoryError, match=r"plan\.json") as refused:
        read_plan(run)
    assert "--resume writes it again" in refused.value.hint


def test_logs_that_are_a_file_are_one_error(tmp_path):
    (tmp_path / "logs").touch()
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        RunDirectory(tmp_path).new_attempt()


def test_a_missing_file_is_named_with_a_way_to_look(tmp_path):
    with pytest.raises(RunDirectoryError, match="cannot be read") as refused:
        read_json(tmp_path / "a b.json")
    assert "'" in refused.value.hint


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunDirectoryError, match="has no file locks") as refused, RunDirectory(tmp_path).locked():
        pass
    assert "-o flock" in refused.value.hint
    assert not is_locked(tmp_path / ".lock")
