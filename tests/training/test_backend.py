"""Which backend a run gets, why, and what happens where Unsloth cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.errors import LaunchError
from grpo_dist.plan import plan_run
from grpo_dist.render import render_files
from grpo_dist.run.directory import RunDirectory, write_json
from grpo_dist.training.common import backend
from grpo_dist.training.common.backend import Backend, choose_backend, recorded
from grpo_dist.training.common.process import Run, open_run

GPU, CPU = {"gpus_per_node": 1}, {"gpus_per_node": 0}

SETTLE = """
import os, sys
from pathlib import Path
from types import SimpleNamespace

# as where there is a GPU
sys.modules["grpo_dist.training.common.world"] = SimpleNamespace(check_device=lambda plan: None)

from grpo_dist.training.common.process import as_process, open_run
from grpo_dist.training.common.backend import select_backend


def work():
    found = select_backend(open_run(Path(sys.argv[1])))
    print("settled:", found.name, "torch:", "torch" in sys.modules, "LEFT:", os.environ.get("LEFT"))


as_process(work)
"""


def run_with(path: Path, stated: str, **sections: Any) -> Run:
    config = RunConfig.model_validate(
        {"model": {"name_or_path": "embedded", "backend": stated}, "data": {"name_or_path": "embedded"}, **sections}
    )
    RunDirectory(path).create(render_files(config, plan_run(config)))
    return open_run(path)


@pytest.mark.parametrize(
    ("sections", "missing", "name", "reason"),
    [
        ({"cluster": GPU}, None, "unsloth", "one process trains on one GPU"),
        ({"cluster": GPU, "rollout": {"backend": "vllm"}}, None, "unsloth", "one process trains on one GPU"),
        ({"cluster": GPU}, "Unsloth is not installed", "trl", "Unsloth is not installed"),
        ({"cluster": {"gpus_per_node": 2}}, None, "trl", "Unsloth trains in one process, and 2 are planned"),
        (
            {"cluster": {"gpus_per_node": 2}, "rollout": {"backend": "vllm", "mode": "server"}},
            None,
            "trl",
            "Unsloth generates in the training process, and rollout.mode is server",
        ),
        ({"cluster": CPU}, None, "trl", "Unsloth is opt-in on a CPU"),
    ],
)
def test_auto(tmp_path, monkeypatch, sections, missing, name, reason):
    monkeypatch.setattr(backend, "unsloth_missing", lambda *, on_cpu: missing)
    assert choose_backend(run_with(tmp_path / "run", "auto", **sections)) == Backend(name, reason)


def test_one_that_is_stated(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "unsloth_missing", lambda *, on_cpu: None)
    assert choose_backend(run_with(tmp_path / "trl", "trl", cluster=GPU)).name == "trl"
    asked = run_with(tmp_path / "unsloth", "unsloth", cluster=CPU)
    assert choose_backend(asked).name == "unsloth"
    monkeypatch.setattr(backend, "unsloth_missing", lambda *, on_cpu: "Unsloth is not installed" if on_cpu else None)
    with pytest.raises(LaunchError, match=r"model\.backend: Unsloth is not installed\n.*grpo-dist\[unsloth\]"):
        choose_backend(asked)


def test_a_run_keeps_its_own(tmp_path):
    run = run_with(tmp_path / "run", "auto", cluster=GPU)
    assert recorded(run) is None
    write_json(run.directory.environment, {"python": "3.11"})
    assert recorded(run) is None
    write_json(run.directory.environment, {"backend": {"name": "trl", "reason": "so it was"}})
    assert recorded(run) == Backend("trl", "so it was")


@dataclass(frozen=True)
class Elsewhere:
    """A process that finds an Unsloth of ours."""

    place: Path

    def settle(self, run: Run) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(self.place)}
        command = [sys.executable, "-c", SETTLE, str(run.directory.path)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def with_unsloth(tmp_path):
    def put(source: str) -> Elsewhere:
        place = tmp_path / "packages"
        (place / "unsloth-2026.10.9.dist-info").mkdir(parents=True)
        text = "Metadata-Version: 2.1\nName: unsloth\nVersion: 2026.10.9\n"
        (place / "unsloth-2026.10.9.dist-info" / "METADATA").write_text(text)
        (place / "unsloth.py").write_text(source)
        return Elsewhere(place)

    return put


LOOKS_AROUND = """
import os, sys
early = [name for name in ("torch", "trl", "transformers", "peft") if name in sys.modules]
print("early:", early, "standby:", os.environ.get("UNSLOTH_VLLM_STANDBY"))
print("cache:", os.environ["UNSLOTH_COMPILE_LOCATION"])
"""


def test_it_is_imported_first_and_told_before(tmp_path, with_unsloth):
    rollout = {"backend": "vllm", "enable_sleep_mode": True}
    run = run_with(tmp_path / "run", "auto", cluster=GPU, rollout=rollout)
    done = with_unsloth(LOOKS_AROUND).settle(run)
    assert "early: [] standby: 1" in done.stdout, done.stderr
    assert f"cache: {run.directory.path}/unsloth_compiled_cache" in done.stdout
    assert "settled: unsloth" in done.stdout


def test_a_failed_import_begins_again_with_trl_and_says_so(tmp_path, with_unsloth):
    run = run_with(tmp_path / "run", "auto", cluster=GPU)
    write_json(run.directory.environment, {"python": "3.11"})
    broken = "import os, torch\nos.environ['LEFT'] = 'behind'\nraise NotImplementedError('no accelerator')"
    done = with_unsloth(broken).settle(run)
    assert "backend: Unsloth cannot be imported: no accelerator; starting again with TRL and PEFT" in done.stdout
    assert "settled: trl torch: False LEFT: None" in done.stdout, done.stderr  # nothing of the import is left
    noted = json.loads(run.directory.environment.read_text())
    found = {"name": "trl", "reason": "Unsloth cannot be imported: no accelerator"}
    assert noted == {"python": "3.11", "backend": found}


def test_a_failed_import_of_one_that_was_asked_for_is_an_error(tmp_path, with_unsloth):
    run = run_with(tmp_path / "run", "unsloth", cluster=GPU)
    done = with_unsloth("raise ImportError('half of it is missing')").settle(run)
    assert done.returncode == 1
    assert "model.backend: Unsloth cannot be imported: half of it is missing" in done.stdout
    assert not run.directory.environment.exists()


def test_what_unsloth_has_begun_to_train_trl_does_not_go_on_with(tmp_path, with_unsloth):
    run = run_with(tmp_path / "run", "auto", cluster=GPU)
    begun = {"backend": {"name": "unsloth", "reason": "one process trains on one GPU"}}
    write_json(run.directory.environment, begun)
    run.directory.warm_start.mkdir()
    gone = with_unsloth("raise ImportError('gone since')")
    refused = gone.settle(run)
    assert refused.returncode == 1
    assert "the run was started with Unsloth. Unsloth cannot be imported: gone since" in refused.stdout
    assert "--output DIR" in refused.stdout
    assert json.loads(run.directory.environment.read_text()) == begun
    run.directory.warm_start.rmdir()
    assert "settled: trl" in gone.settle(run).stdout


def test_arguments_are_trls_whatever_stands_in_its_place():
    """A class as Unsloth makes it on a GPU: of TRL's name, with other defaults, and settings it replaces."""
    from trl import GRPOConfig as Original

    from grpo_dist.training.common.unsloth_arguments import build

    class GRPOConfig(Original):
        def __init__(self, output_dir=None, learning_rate=5e-5, weight_decay=0.001, loss_type=None, **keywords):
            if loss_type == "dapo":
                keywords["epsilon_high"] = 0.28
            super().__init__(
                output_dir=output_dir,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                loss_type=loss_type,
                **keywords,
            )
            self.unsloth_num_chunks = -1

    stated = {
        "output_dir": "somewhere",
        "loss_type": "dapo",
        "num_generations": 4,
        "use_cpu": True,
        "report_to": "none",
    }
    theirs, plain = build(GRPOConfig, **stated), build(Original, **stated)
    assert isinstance(theirs, GRPOConfig)
    assert theirs.unsloth_num_chunks == -1
    assert theirs.to_dict() == plain.to_dict()
    assert (theirs.learning_rate, theirs.epsilon_high) == (plain.learning_rate, None)
    assert GRPOConfig(**stated).learning_rate != plain.learning_rate
