from __future__ import annotations

import subprocess
import sys

import pytest

from grpo_dist.errors import RunDirectoryError
from grpo_dist.run.directory import RunDirectory, write_atomically, write_json


def test_creation_is_all_or_nothing(tmp_path):
    run = RunDirectory(tmp_path / "deep" / "it's a run")
    run.create({"config.yaml": "a: 1\n", "plan.json": "{}\n"})
    assert run.exists()
    assert run.plan.read_text() == "{}\n"
    assert [p.name for p in run.path.parent.iterdir()] == ["it's a run"]


def test_an_empty_directory_may_be_taken_and_a_full_one_not(tmp_path):
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "empty").create({"config.yaml": ""})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirectoryError, match="Directory not empty"):
        RunDirectory(tmp_path / "full").create({"config.yaml": ""})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full"]
    assert (tmp_path / "full" / "thesis.tex").read_text() == "precious"


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="file/run: the run directory cannot be made"):
        RunDirectory(tmp_path / "file" / "run").create({"config.yaml": ""})


def test_attempts_count_on_from_what_is_there(tmp_path):
    run = RunDirectory(tmp_path)
    assert [run.new_attempt().name for _ in range(2)] == ["attempt-1", "attempt-2"]
    (run.logs / "attempt-1").rmdir()
    assert run.new_attempt().name == "attempt-3"


def test_one_process_holds_a_run_and_a_killed_one_lets_go(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from grpo_dist.run.directory import RunDirectory
with RunDirectory(Path({str(tmp_path)!r})).locked():
    print("held", flush=True)
    time.sleep(600)
"""
    run = RunDirectory(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RunDirectoryError, match="still going on"), run.locked():
        pass
    holder.kill()
    holder.wait()
    with run.locked():
        assert (tmp_path / ".lock").exists()


def test_atomic_writes_leave_the_old_text_or_the_new(tmp_path):
    path = tmp_path / "file.json"
    write_atomically(path, "old")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == "old"
    write_json(path, {"ä": 1})
    assert path.read_text() == '{\n  "ä": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]
