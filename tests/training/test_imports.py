"""A process of a run imports what the run uses."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from program import SETTINGS

import grpo_dist
from grpo_dist.config import load_config
from grpo_dist.plan import plan_run
from grpo_dist.render import render_files
from grpo_dist.run.directory import RunDirectory

PROGRAM = """
import json, sys
from pathlib import Path
from grpo_dist.training.common.process import import_lean
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


PACKAGE = Path(grpo_dist.__file__).parent
OPTIONAL = {"unsloth", "vllm", "deepspeed", "wandb", "mlflow"}
"""Packages that a run need not have; Unsloth rewrites TRL for whoever imports it."""


def at_the_top(name: str) -> Iterator[str]:
    """Modules that a module of ours imports when it is imported itself."""
    file = PACKAGE.parent.joinpath(*name.split("."))
    source = file.with_suffix(".py") if file.with_suffix(".py").is_file() else file / "__init__.py"
    if not source.is_file():
        return
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            yield from (one.name for one in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield statement.module
            yield from (f"{statement.module}.{one.name}" for one in statement.names)


@cache
def imports_of(name: str) -> tuple[str, ...]:
    return tuple(at_the_top(name))


def reached_from(name: str) -> set[str]:
    """Every module that comes along with one of ours."""
    reached, waiting = set(), [name]
    while waiting:
        for one in imports_of(waiting.pop()):
            if one not in reached:
                reached.add(one)
                waiting += [one] if one.startswith("grpo_dist") else []
    return reached


@pytest.mark.parametrize("stage", sorted(one.stem for one in (PACKAGE / "training" / "stages").glob("[a-z]*.py")))
def test_a_stage_comes_without_optional_packages(stage):
    reached = reached_from(f"grpo_dist.training.stages.{stage}")
    assert {"grpo_dist.errors", "json"} & reached  # the imports were followed
    assert not {one.partition(".")[0] for one in reached} & OPTIONAL
