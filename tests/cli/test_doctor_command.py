from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from grpo_dist.cli import main

TINY = str(Path(__file__).parents[2] / "grpo_dist" / "config" / "starters" / "tiny-cpu.yaml")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def typed(*arguments: str):
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_the_shipped_example_runs_here():
    result = typed(TINY)
    assert result.exit_code == 0, result.output
    assert "embedded in the program" in result.output


def test_what_could_not_run_exits_1_with_what_to_type():
    result = typed(TINY, "--set", "data.name_or_path=owner/nowhere", "--json")
    assert result.exit_code == 1
    errors = {one["name"]: one for one in json.loads(result.stdout) if one["status"] == "error"}
    assert set(errors) == {"data"}
    assert "grpo-dist prefetch" in errors["data"]["hint"]


def test_what_cannot_be_planned_is_a_finding_among_the_others():
    result = typed(TINY, "--set", "distributed.num_processes=3", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found[0]["name"] == "plan"
    assert "--set grpo.prompts_per_step=15" in found[0]["hint"]
    assert len(found) > 10


def test_without_a_configuration_the_machine_alone_is_no_error():
    assert typed("--json").exit_code == 0
    assert typed("--set", "grpo.seed=1").exit_code == 2
