"""Problems are sorted by a real model: cut off, resumed, in this process and on servers."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from program import Program, six_steps
from waiting import until

from grpo_dist.config import load_config
from grpo_dist.inference.registry import lock_of
from grpo_dist.launch.commands import as_in_training, pass_rates
from grpo_dist.plan import plan_run
from grpo_dist.progress import Terminal
from grpo_dist.render.files import render_files
from grpo_dist.run.directory import RunDirectory

pytestmark = pytest.mark.heavy

PROBLEMS, K, PORTION = 48, 4, 4
SETTINGS = ("--set", f"data.max_samples={PROBLEMS}", "--set", f"evaluation.batch_size={K * PORTION}")


def arguments(program: Program, output: str) -> tuple[str, ...]:
    band = ("--samples", str(K), "--low", "0", "--high", "1")
    return ("filter", str(program.config), *SETTINGS, *band, "--output", output)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


@pytest.fixture(scope="module")
def filtered(tmp_path_factory, embedded_model) -> tuple[Program, dict]:
    """All problems in `whole.jsonl`, and what was told of them."""
    program = six_steps(tmp_path_factory.mktemp("filtered"), embedded_model)
    return program, json.loads(program(*arguments(program, "whole.jsonl"), "--json").stdout)


def test_cut_off_anywhere_it_ends_with_the_same_file(filtered):
    program, asked = filtered
    whole = program.cwd / "whole.jsonl"
    rows = [json.loads(line) for line in lines(whole)]
    assert len(rows) == asked["kept"] == PROBLEMS
    assert {frozenset(row) for row in rows} == {frozenset({"prompt", "answer", "pass_rate", "samples"})}
    assert sum(row["pass_rate"] for row in rows) == pytest.approx(PROBLEMS * asked["mean_pass_rate"])
    assert len({row["pass_rate"] for row in rows}) > 2

    record = program.cwd / "killed.jsonl.work" / "pass_rates.jsonl"
    process = subprocess.Popen(
        program.command(*arguments(program, "killed.jsonl")), cwd=program.cwd, stderr=subprocess.DEVNULL
    )
    until(lambda: record.exists() and len(lines(record)) >= PORTION, 500, pause=0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (program.cwd / "killed.jsonl").exists()

    # What is done is taken as it stands; a line that was cut off, and the portion it belongs to, are asked again.
    done = lines(record)[:PORTION]
    told = {**json.loads(done[0]), "clipped": K + 1}
    record.write_text(json.dumps(told) + "\n" + "".join(done[1:]) + done[1] + done[2][:10])
    program(*arguments(program, "killed.jsonl"))
    assert (program.cwd / "killed.jsonl").read_text() == whole.read_text()
    reference = lines(program.cwd / "whole.jsonl.work" / "pass_rates.jsonl")
    assert lines(record) == [json.dumps(told) + "\n", *reference[1:]]

    other = program(*arguments(program, "whole.jsonl"), "--set", "grpo.temperature=0.5", code=2).stderr
    assert "grpo.temperature: 1.0 there, 0.5 now" in other
    fewer = json.loads(program(*arguments(program, "whole.jsonl"), "--low", "0.25", "--json").stdout)
    assert 0 < fewer["kept"] == PROBLEMS - fewer["histogram"][0]


def test_the_filtered_file_can_be_trained_on(filtered):
    program, asked = filtered
    overrides = [part for setting in asked["settings"] for part in ("--set", setting)]
    short = ("--set", "grpo.max_steps=1", "--set", "evaluation.enabled=false")
    program("run", str(program.config), *overrides, *short, "--output", "run")
    assert (program.cwd / "run" / "adapter").is_dir()


def test_the_base_model_is_measured_before_advice_is_given(program):
    options = ("--config", str(program.config), "--samples", "2", "--problems", "6", "--json")
    found = json.loads(program("advise", *options).stdout)
    assert (found["base"]["problems"], found["base"]["samples"]) == (6, 2)
    expected = {"sometimes": "rft", "never": "warm-start", "always": "harder"}
    assert found["advice"] == expected[found["facts"]["base"]]


def test_servers_answer_where_the_plan_has_them(program, engine, tmp_path):
    import yaml

    stated = yaml.safe_load(program.config.read_text())
    stated["model"] |= {"name_or_path": str(engine.model_directory), "max_length": 64}
    stated["data"] |= {"max_samples": 24, "max_prompt_length": 16}
    stated["rollout"] = {"backend": "vllm", "mode": "server", "replicas": 1}
    path = tmp_path / "served.yaml"
    path.write_text(yaml.safe_dump(stated))
    config = as_in_training(load_config(path), K)
    work = RunDirectory(tmp_path / "served.work")
    work.create(render_files(config, plan_run(config)))
    work.replicas.symlink_to(engine.registry)
    with open(lock_of(work.replicas, 0), "a") as lock:  # as if `grpo-dist serve` held it
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = pass_rates(config, work, Terminal(), command="filter")
        assert len({one.row for one in found}) == 24
        assert {one.samples for one in found} == {K}
        work.sampled.unlink()
        work.pass_rates.write_text("")
        again = pass_rates(config, work, Terminal(), command="filter")
    assert [one.row for one in again] == [one.row for one in found]
    assert sum(one.right != other.right for one, other in zip(found, again, strict=True)) <= 2
