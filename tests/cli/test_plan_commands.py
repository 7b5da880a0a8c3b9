"""`grpo-dist plan` and `grpo-dist scale` as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from grpo_dist.cli import main

STATED = {
    "model": {"name_or_path": "Qwen/Qwen3-4B-Base"},
    "data": {"name_or_path": "somewhere/problems", "max_prompt_length": 202},
    "rollout": {"backend": "vllm", "mode": "server"},
    "cluster": {"nodes": 2, "gpus_per_node": 8},
    "grpo": {"prompts_per_step": 32, "num_generations": 16, "max_steps": 100},
}


@pytest.fixture
def stated(tmp_path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(STATED))
    return str(path)


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_json_holds_what_is_promised(stated):
    result = typed("plan", stated, "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    batch = plan["batch"]
    for name in ("num_processes", "per_device_train_batch_size", "gradient_accumulation_steps"):
        assert batch[name] >= 1
    assert batch["steps_per_generation"] == batch["gradient_accumulation_steps"]
    assert batch["generation_batch_size"] == batch["prompts_per_step"] * batch["num_generations"] == 512
    assert plan["topology"]["num_processes"] == batch["num_processes"]
    assert plan["memory"]["roles"].keys() == {"trainer", "rollout"}
    assert plan["time"]["gpu_hours"] > 0
    assert plan["warnings"] == []
    assert result.stdout == typed("plan", stated, "--json").stdout


def test_nodes_may_be_given_as_to_submit(stated):
    plan = json.loads(typed("plan", stated, "--nodes", "4", "--json").stdout)
    assert plan == json.loads(typed("plan", stated, "--set", "cluster.nodes=4", "--json").stdout)
    assert plan["topology"]["nodes"] == 4


def test_a_person_is_shown_the_same(stated):
    result = typed("plan", stated)
    assert result.exit_code == 0, result.output
    plan = json.loads(typed("plan", stated, "--json").stdout)
    text = " ".join(result.output.split())
    assert "32 prompts × 16 completions = 512 per step" in text
    assert f"{plan['time']['seconds_per_step']:,.1f} s per step" in text
    for role in plan["memory"]["roles"].values():
        assert f"{role['total_bytes'] / 2**30:,.1f} GiB of 79.1 GiB" in text
    for assumed in plan["time"]["assumptions"]:
        assert assumed["name"] in text


def test_a_refusal_is_words_and_exit_2(stated):
    result = typed("plan", stated, "--set", "cluster.gpus_per_node=7", "--set", "rollout.replicas=1", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: 32 prompts × 16 completions = 512" in result.stderr
    assert "→ nearest that can run:\n      --set rollout.replicas=" in result.stderr


def test_sizes_in_a_table_and_in_json(stated):
    arguments = ("scale", stated, "--nodes", "1,2,3,16", "--num-generations", "8,16")
    found = json.loads(typed(*arguments, "--json").stdout)
    assert [(row["nodes"], row["num_generations"]) for row in found["sizes"]] == [
        (nodes, group) for nodes in (1, 2, 3, 16) for group in (8, 16)
    ]
    assert found["keep"] == "prompts"
    assert found["steps"] == 100
    assert found["assumptions"]
    table = typed(*arguments)
    assert table.exit_code == 0
    text = " ".join(table.output.split())
    for row in found["sizes"]:
        shown = f"{row['seconds_per_step']:,.1f}" if row["runs"] else row["problem"]["message"][:40]
        assert shown in text
    assert "a value to start from, not a law" in text
    for row in found["sizes"]:
        times = ("generation_seconds", "training_seconds", "sync_seconds") if row["runs"] else ()
        assert all(f" {row[name]:,.1f} " in text for name in times)


def test_the_sizes_fit_80_columns(stated, monkeypatch):
    monkeypatch.setattr("grpo_dist.cli.columns.width", lambda: 80)
    options = ("--price", "2", "--problems", "17000", "--set", "cluster.time=00:10:00")
    lines = typed("scale", stated, "--nodes", "1,2,3,64", *options).output.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line.startswith("nodes ")} == {"nodes"}
    headings = " ".join(" ".join(lines).split())
    for heading in ("generation", "training", "sync", "comparison", "linear", "other mode", "cost", "epoch", "jobs"):
        assert heading in headings


def test_a_size_that_cannot_run_does_not_hide_the_others(stated):
    result = typed("scale", stated, "--nodes", "1,2", "--num-generations", "3,16", "--keep", "completions", "--json")
    assert result.exit_code == 0
    assert [row["runs"] for row in json.loads(result.stdout)["sizes"]] == [False, True, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nodes", "0"), "0 is not between 1 and 10000"),
        (("--nodes", "1,two"), "'1,two' is no list of whole numbers"),
        (("--nodes", ""), "is no list of whole numbers"),
        (("--nodes", "1", "--num-generations", "1"), "1 is not between 2 and"),
        (("--nodes", "1", "--keep", "group", "--num-generations", "8"), "leave --num-generations out"),
        ((), "Missing option '--nodes'"),
        (("--nodes", "1", "--calibrate", "nowhere"), "no run to calibrate with"),
    ],
)
def test_what_is_typed_wrong(stated, arguments, message):
    result = typed("scale", stated, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


LIBRARIES = "import pydantic, yaml, click.testing; pydantic.BaseModel\n"
PLAN = """
import sys
from grpo_dist.cli import main
from click.testing import CliRunner
assert CliRunner().invoke(main, sys.argv[1:]).exit_code == 0
"""
# Not ru_maxrss: it starts at what the parent process had.
MEASURE = """
import time
print(time.process_time(), next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def used(code: str, *arguments: str) -> tuple[float, int]:
    """(CPU seconds, most KiB) of a process."""
    command = [sys.executable, "-c", code + MEASURE, *arguments]
    seconds, kib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), int(kib)


@pytest.mark.parametrize("nodes", [2, 1024])
def test_planning_costs_little_more_than_its_libraries(stated, nodes):
    """0.3 s and 40 MB when this was written, also for 8,192 GPUs."""
    least, _ = used(LIBRARIES)
    overrides = ("--set", f"cluster.nodes={nodes}", "--set", f"grpo.prompts_per_step={16 * nodes}")
    seconds, kib = used(PLAN, "plan", stated, *overrides)
    assert seconds < 5 * least
    assert kib < 60 * 1024


def test_every_shipped_configuration_is_planned():
    shipped = sorted(Path(__file__).parents[2].joinpath("configs").glob("*.yaml"))
    assert shipped
    for path in shipped:
        result = typed("plan", str(path), "--json")
        assert result.exit_code == 0, result.output


def test_files_that_are_not_there_are_all_named(stated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    functions = "rewards.functions=[mine.py:here, ours/away.py:gone]"
    overrides = (functions, "evaluation.scorer=judge.py:judge", "data.chat_template=chat.jinja")
    refused = typed("plan", stated, *(word for one in overrides for word in ("--set", one)))
    assert refused.exit_code == 2
    named = [f"rewards.functions: there is no file {tmp_path}/ours/away.py"]
    named += [f"evaluation.scorer: there is no file {tmp_path}/judge.py"]
    named += [f"data.chat_template: there is no file {tmp_path}/chat.jinja"]
    assert [line.removeprefix("Error: ").strip() for line in refused.output.splitlines()[:3]] == named
