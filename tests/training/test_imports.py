"""A process of a run imports what the run uses."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml
from program import SETTINGS

from grpo_dist.config import load_config
from grpo_dist.plan import plan_run
from grpo_dist.render import render_files
from grpo_dist.run.directory import RunDirectory

PROGRAM = """
import json, sys
from pathlib import Path
from grpo_dist.training.common.imports import import_lean
from grpo_dist.training.common.process import open_run
import_lean(open_run(Path(sys.argv[1])))
import grpo_dist.training.stages.train
print(json.dumps([name for name in ("vllm", "wandb", "trl.trainer.grpo_trainer") if name in sys.modules]))
"""


@pytest.mark.heavy
def test_training_imports_neither_vllm_nor_wandb_for_a_run_without(tmp_path, missing):
    for name in ("vllm", "wandb"):
        if find_spec(name) is None:
            missing(f"{name} is not installed")
    stated = tmp_path / "config.yaml"
    stated.write_text(yaml.safe_dump({"model": {"name_or_path": "embedded"}, "tracking": ["tensorboard"], **SETTINGS}))
    config = load_config(stated)
    RunDirectory(tmp_path / "run").create(render_files(config, plan_run(config)))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1]) == ["trl.trainer.grpo_trainer"]
