"""What the real runs share. Each of their processes spends seconds on imports, so one run serves many tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from program import TRACKED, Program, six_steps


@pytest.fixture(scope="session")
def embedded_model(tmp_path_factory) -> Path:
    """One embedded base model for all runs: what they test does not depend on how well it adds."""
    from grpo_dist.embedded.base_cache import build

    path = tmp_path_factory.mktemp("embedded") / "model"
    build(path, 11, lambda _: None, _steps=120)
    return path


@pytest.fixture
def program(tmp_path, embedded_model) -> Program:
    return six_steps(tmp_path, embedded_model)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, embedded_model) -> tuple[Program, subprocess.CompletedProcess[str]]:
    """A whole run, `run`, which every tracker has followed, and what it said."""
    program = six_steps(tmp_path_factory.mktemp("a finished run"), embedded_model)
    return program, program("run", str(program.config), *TRACKED, "--output", "run")
