"""Damaged run directories: one clear error each, and never at the cost of the other runs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from synthetic_runs import make_run

from grpo_dist.cli import main
from grpo_dist.cli.options import each_readable
from grpo_dist.errors import RunDirectoryError
from grpo_dist.evaluation.pass_rates import Record
from grpo_dist.plan.launch import read_plan
from grpo_dist.run.control import read_outcome, read_start, stopped_at
from grpo_dist.run.directory import RunDirectory, is_locked, read_json
from grpo_dist.slurm import status
from grpo_dist.slurm.status import read_job

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
    "aliases that stand for themselves": ("config.yaml", "a: &a [*a]\n"),
    "a job of other fields": ("job.json", '{"job": 7}'),
    "a job of numbers": ("job.json", '{"job_id": 7, "submitted": []}'),
    "no settings": ("config.yaml", ""),
}


def unreadable_by(what: str):
    """Puts something in the place of a file that cannot be read as one."""

    def act(path):
        path.unlink(missing_ok=True)
        if what == "directory":
            path.mkdir()
        elif what == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(path.name if what == "loop" else "/nowhere")

    return act


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


FILES = (
    "plan.json",
    "job.json",
    "config.yaml",
    "metrics.jsonl",
    "environment.json",
    "prepared.json",
    "comparison.json",
)


@pytest.mark.parametrize("what", ["directory", "pipe", "loop", "dangling"])
def test_what_is_no_file_is_named_and_does_not_hide_the_others(runs, what):
    for name in FILES:
        make_run(runs / name)
        unreadable_by(what)(runs / name / name)
    for command in ("status", "report"):
        both = invoke(command, runs, "--json")
        assert both.exit_code == 0, both.exception
        assert len([run for run in json.loads(both.stdout) if Path(run.get("run") or run["path"]).name == "good"]) == 1
        for name in FILES:
            alone = invoke(command, runs / name)
            assert alone.exception is None or isinstance(alone.exception, SystemExit), alone.exception


@pytest.mark.parametrize("name", ["outcome.json", "allocation.json", "stopped.json"])
@pytest.mark.parametrize("text", ["", "{}", "[1]", DEEP, '{"code": "x", "why": 1, "step": null}', '{"step": 1e999}'])
def test_a_damaged_note_of_an_attempt_is_as_none(tmp_path, name, text):
    attempt = RunDirectory(tmp_path).new_attempt()
    (attempt / name).write_text(text)
    read = {"outcome.json": read_outcome, "allocation.json": read_start, "stopped.json": stopped_at}[name]
    assert read(attempt) is None


@pytest.mark.parametrize("line", ["7", DEEP, "{", '{"row": 1}', '{"row": 1, "samples": "x", "right": 0, "clipped": 0}'])
def test_a_damaged_pass_rate_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "pass_rates.jsonl"
    path.write_text('{"row": 0, "samples": 4, "right": 1, "clipped": 0}\n' + line + "\n")
    with pytest.raises(RunDirectoryError, match="damaged") as refused:
        Record(path).read()
    assert "2,$d" in refused.value.hint


def test_a_damaged_job_hides_no_other_job_from_cancel(runs, monkeypatch):
    (runs / "bad" / "job.json").write_text("{")
    monkeypatch.setattr(status, "my_jobs", list)
    monkeypatch.setattr(status, "job_of", lambda run, _: read_job(run) or SimpleNamespace(job_id="7", ended=False))
    assert status.active_jobs(runs, each_readable) == ["7"]


def test_a_run_without_settings_leaves_room_for_the_others(runs):
    (runs / "bad" / "config.yaml").unlink()
    shown = invoke("report", runs)
    assert "good" in shown.stdout


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
