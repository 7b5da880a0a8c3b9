from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from leftovers import processes_with, shared_memory
from waiting import until

from grpo_dist.cli import main

SETTINGS = {
    "model": {"name_or_path": "embedded", "dtype": "float32", "max_length": 64},
    "data": {"name_or_path": "embedded", "max_prompt_length": 16},
    "lora": {"r": 4},
    "grpo": {"prompts_per_step": 4, "num_generations": 4, "max_completion_length": 32},
    "cluster": {"gpus_per_node": 0},
    "rollout": {"backend": "vllm", "mode": "server", "replicas": 1},
}


@pytest.fixture
def run(tmp_path) -> Path:
    """A run directory, planned and not prepared; its path has a space."""
    config, path = tmp_path / "config.yaml", tmp_path / "the run"
    config.write_text(yaml.safe_dump(SETTINGS))
    invoke("render", config, "--output", path)
    return path


def invoke(*arguments: object, code: int = 0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def prepared(run: Path, model: Path | None = None) -> None:
    for part in ("model", "tokenizer"):
        shutil.copytree(model, run / part) if model else (run / part).mkdir()


def test_a_directory_without_a_run_is_refused_with_what_to_type(tmp_path):
    found = invoke("serve", tmp_path, code=2)
    assert f"grpo-dist render CONFIG --output {tmp_path}" in found.output


def test_a_run_that_is_not_prepared_is_refused_with_what_to_type(run):
    found = invoke("serve", run, code=2)
    assert "tokenizer and model missing" in found.output
    assert "grpo_dist.training prepare" in found.output


def test_a_node_without_servers_is_refused(run):
    prepared(run)
    assert "node 3 of this run has no rollout servers" in invoke("serve", run, "--node", 3, code=2).output


def test_two_supervisors_of_one_node_refuse(run):
    prepared(run)
    (run / "replicas").mkdir()
    with open(run / "replicas" / ".lock-0", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "are running" in invoke("serve", run, code=2).output


@pytest.mark.heavy
def test_nothing_outlives_servers_whose_keeper_is_killed(run, engine_model, monkeypatch, missing):
    if find_spec("vllm") is None:
        missing("vLLM is not installed")
    prepared(run, engine_model)
    scratch = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("THE_RUN", str(run))  # every process of it inherits the mark
    # Once it is set, vLLM computes in a process of its own, as on several GPUs, with shared memory between.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    command = [sys.executable, "-m", "grpo_dist", "serve", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serve:
        ready = json.loads(serve.stdout.readline())
        (replica,) = ready["replicas"]
        processes = processes_with(str(run))
        assert {serve.pid, replica["pid"]} < set(processes)
        assert len(processes) >= 5  # the keeper, the leash, the server, its engine, the engine's worker
        key = Path(ready["key_file"]).read_text()
        assert not any(key.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes)
        assert key not in Path(replica["log"]).read_text()
        segments = shared_memory(processes)
        assert segments
        serve.send_signal(signal.SIGKILL)

    def left() -> list[object]:
        return [*processes_with(str(run)), *(path for path in segments if path.exists()), *scratch.iterdir()]

    until(lambda: not left(), why=lambda: str(left()))
    scratch.rmdir()
