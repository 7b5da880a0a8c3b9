"""Whole runs on real vLLM engines: as good as without, whatever fails, and true in what they say of themselves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from program import SETTINGS, Program, make_prepared, processes_in
from safetensors.torch import load_file
from waiting import until

pytestmark = pytest.mark.heavy

TINY = Path(__file__).parent.parent.parent / "configs" / "tiny-cpu.yaml"
SERVER = {"backend": "vllm", "mode": "server", "replicas": 1}
GAP = 1e-4
"""Largest mean difference of log-probabilities between servers and trainer in float32."""
STEPS_ON_TWO = 3
PROBLEMS = 32


def config(path: Path, model: Path, **rollout) -> Path:
    sections = {
        **SETTINGS,
        "model": {"name_or_path": str(model), "dtype": "float32", "max_length": 64},
        "data": {**SETTINGS["data"], "max_prompt_length": 16},
        "rollout": {**SERVER, **rollout},
        "evaluation": {"enabled": False},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


def on(
    registry: Path, stated: Path, run: Path, *overrides: str, by: Path | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A run on servers that are up; prepared as `by` is, a run on the same model and data."""
    if by is not None:
        make_prepared(run, stated, *overrides, by=by)
    script = Path(__file__).parent / "on_engines.py"
    command = [sys.executable, str(script), str(stated), str(run), str(registry), *overrides]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
    return result


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def sampled(run: Path) -> list[tuple]:
    """What every step drew: tokens and rewards tell completions apart."""
    return [(line["num_tokens"], line["reward"], line["completions/mean_length"]) for line in metrics(run)]


def gaps(run: Path) -> list[float]:
    return [line["sampling/sampling_logp_difference/mean"] for line in metrics(run)]


def adapter(run: Path) -> dict:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def same_adapter(one: Path, other: Path, tolerance: float = 1e-4) -> bool:
    first, second = adapter(one), adapter(other)
    return all((first[name] - second[name]).abs().max() < tolerance for name in first)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, engine) -> tuple[Path, Path]:
    """Configuration and run directory of six steps on one server, which writes the next step's completions while one
    is trained. (Runs that take turns with their servers are those of test_vllm_faults.py.)"""
    directory = tmp_path_factory.mktemp("reference")
    stated = config(directory / "config.yaml", engine.model_directory, max_staleness=1)
    on(engine.registry, stated, directory / "run")
    return stated, directory / "run"


def test_every_step_is_sampled_from_the_policy_before_it(reference):
    _, run = reference
    lines = metrics(run)
    assert [line["perf/policy_version"] for line in lines] == [0, 0, 1, 2, 3, 4]
    assert [line["perf/staleness"] for line in lines] == [0, 1, 1, 1, 1, 1]
    assert [line["perf/batches_in_flight"] for line in lines] == [1, 1, 1, 1, 1, 0]
    assert max(gaps(run)[:2]) < GAP < min(gaps(run)[2:])  # the first step of the warm-up changes nothing
    assert lines[0]["perf/canary_difference"] < GAP and lines[1]["perf/canary_difference"] < GAP
    size = (run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert all(size <= line["perf/sync_bytes"] < size + 5_000 for line in lines)
    assert all(line["perf/sync_seconds"] > 0 and line["perf/generation_seconds"] > 0 for line in lines)
    assert all(0 < line["perf/idle_share"] < 1 for line in lines)
    assert all(0 < line["perf/replica_utilization"] <= 1 for line in lines)
    assert all(line["perf/wait_seconds"] + line["perf/sync_seconds"] < line["step_time"] for line in lines)
    tables = sorted((run / "completions").glob("*.parquet"))
    versions = [set(pyarrow.parquet.read_table(path)["policy_version"].to_pylist()) for path in tables]
    assert versions == [{0}, {0}, {1}, {2}, {3}, {4}]
    assert not (run / "policies").exists()


def test_engines_in_the_training_process_draw_the_same(tmp_path, reference, engine):
    stated, served = reference
    colocated = ("rollout.mode=colocate", "rollout.replicas=auto", "rollout.max_staleness=0")
    colocated += ("grpo.max_steps=3", "grpo.lr_scheduler_type=linear")
    on(engine.registry, stated, tmp_path / "run", *colocated, by=served)
    assert max(gaps(tmp_path / "run")) < GAP
    assert sampled(tmp_path / "run")[0] == sampled(served)[0]
    assert metrics(tmp_path / "run")[0]["perf/canary_difference"] < GAP


def test_zero3_sends_the_gathered_adapter_by_http(tmp_path, reference, engine):
    stated, served = reference
    sharded = ("distributed.strategy=zero3", "distributed.num_processes=2", "rollout.transport=push")
    on(engine.registry, stated, tmp_path / "run", *sharded, "grpo.max_steps=3", by=served)
    assert gaps(tmp_path / "run")[0] < GAP
    assert sampled(tmp_path / "run")[:2] == sampled(served)[:2]
    assert [line["perf/policy_version"] for line in metrics(tmp_path / "run")] == [0, 0, 1]


def test_a_killed_run_draws_again_what_it_had_drawn(tmp_path, reference, engine):
    stated, served = reference
    script = Path(__file__).parent / "on_engines.py"
    run = tmp_path / "run"
    make_prepared(run, stated, by=served)
    command = [sys.executable, str(script), str(stated), str(run), str(engine.registry)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: (run / "metrics.jsonl").exists() and len(metrics(run)) >= 3, 240)
    first.kill()
    first.wait()
    on(engine.registry, stated, run)
    assert sampled(run) == sampled(served)
    assert same_adapter(run, served, tolerance=1e-6)


def test_two_processes_on_two_servers_keep_their_key_and_leave_nothing(tmp_path, engine, engine_model):
    """The engine of the other tests stands for another run on the machine. That servers teach as much as the demo
    learns is for a whole job to show (tests/slurm/test_slurm_vllm.py)."""
    program = Program(tmp_path, TINY)
    overrides = [
        *("rollout.backend=vllm", "rollout.mode=server", "rollout.replicas=2", "distributed.num_processes=2"),
        *(f"model.name_or_path={engine_model}", f"grpo.max_steps={STEPS_ON_TWO}", "grpo.prompts_per_step=8"),
        *(f"evaluation.num_problems={PROBLEMS}", "evaluation.num_samples=1"),
    ]
    process = program.start("run", str(TINY), *(word for one in overrides for word in ("--set", one)))
    run, keys = tmp_path / "runs" / "tiny-cpu", set()
    while process.poll() is None:
        time.sleep(0.2)
        if (run / "replicas" / "key").exists():
            try:
                keys.add((run / "replicas" / "key").read_text().strip())
                visible = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_in(run))
            except FileNotFoundError:
                continue
            assert not any(key.encode() in visible for key in keys)
    assert process.returncode == 0
    assert program.report("runs/tiny-cpu")["problems"] == PROBLEMS
    answered_by = json.loads((run / "comparison.json").read_text())["answered_by"]
    assert sorted(answered_by) == ["server 0", "server 1"]
    assert sum(answered_by.values()) == 2 * 2 * PROBLEMS
    assert [line["perf/policy_version"] for line in metrics(run)] == list(range(STEPS_ON_TWO))
    assert max(gaps(run)) < GAP

    (key,) = keys
    assert key != engine.key
    logs = b"".join(path.read_bytes() for path in run.rglob("*.log"))
    assert key.encode() not in logs
    assert processes_in(run) == []
    assert [path.name for path in (run / "replicas").iterdir() if not path.name.startswith(".")] == []


def test_a_run_that_lost_its_only_server_saves_and_can_be_continued(tmp_path, reference, engine):
    stated, served = reference
    program = Program(tmp_path, stated)
    given_up = "rollout.max_restarts=0"
    run = tmp_path / "run"
    make_prepared(run, stated, given_up, by=served)
    process = program.start("run", str(stated), "--set", given_up, "--output", "run", "--resume")
    until(lambda: len(program.metrics("run")) >= 3, 300)
    (entry,) = (json.loads(path.read_text()) for path in (run / "replicas").glob("*.json"))
    os.kill(entry["pid"], signal.SIGKILL)
    assert process.wait(240) == 75
    saved = max(int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("checkpoint-*"))
    assert saved == len(program.metrics("run"))
    assert processes_in(run) == []

    shutil.rmtree(run / "replicas")
    on(engine.registry, stated, run, given_up)
    assert sampled(run) == sampled(served)
    assert same_adapter(run, served)
