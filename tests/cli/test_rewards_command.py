"""`grpo-dist rewards` on the embedded problems, with rewards of every kind of wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

CONFIG = Path(__file__).parents[2] / "grpo_dist" / "config" / "starters" / "tiny-cpu.yaml"

MINE = """
import os, re

def whole(completions, answer, **_):
    form = re.compile(r"^<start_working_out>.+?<end_working_out><SOLUTION>(.+?)</SOLUTION>$", re.DOTALL)
    found = [form.match(completion[0]["content"]) for completion in completions]
    return [float(bool(match) and match[1] == truth) for match, truth in zip(found, answer)]

def lazy(completions, answer, **_):
    return [0.0] * len(completions)

def bound_to_end(completions, **_):
    os._exit(7)
"""


def rewards(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "mine.py").write_text(MINE)
    command = [sys.executable, "-m", "grpo_dist", "rewards", str(CONFIG), *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)


def test_a_table_for_people_and_nothing_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result = rewards(tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[-2:] == ["check_numbers", "sum"]
    assert next(line for line in lines if line.startswith("gold ")).split()[1:] == [
        "3.00",
        "1.50",
        "5.00",
        "3.50",
        "9.62",
    ]
    assert "gold is written with solution tags; the template prefills <start_working_out>" in result.stdout
    assert "junk-pays" in result.stdout
    assert not list(tmp_path.glob("grpo-dist-*"))


def test_what_is_wrong_is_named_and_what_is_allowed_passes(tmp_path):
    functions = "rewards.functions=[mine.py:whole, mine.py:lazy, mine.py:bound_to_end]"
    result = rewards(tmp_path, "--set", functions, "--json")
    assert result.returncode == 1, result.stderr
    found = {(one["name"], one["status"]) for one in json.loads(result.stdout)["findings"]}
    errors = {"prefilled-tag", "never-varies", "reward-crashes"}
    assert found >= {(name, "error") for name in errors}

    report = json.loads(result.stdout)
    assert report["cases"]["empty"]["functions"][next(name for name in report["functions"] if "lazy" in name)] == 0.0
    names = sorted({name for name, status in found if status == "error"})
    allowed = rewards(tmp_path, "--set", functions, "--set", f"rewards.allow=[{','.join(names)}]", "--json")
    assert allowed.returncode == 0, allowed.stderr
    assert {one["status"] for one in json.loads(allowed.stdout)["findings"]} == {"warning"}


def test_what_cannot_be_imported_is_an_error_in_one_line(tmp_path):
    result = rewards(tmp_path, "--set", "rewards.functions=[mine.py:hole]")
    assert result.returncode == 2
    assert "mine.py:whole" in result.stderr
    assert "Traceback" not in result.stderr
