"""What the real runs share."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from program import SETTINGS, Program


@pytest.fixture(scope="session")
def embedded_model(tmp_path_factory) -> Path:
    """One embedded base model for all runs: what they test does not depend on how well it adds."""
    from grpo_dist.embedded.model import build

    path = tmp_path_factory.mktemp("embedded") / "model"
    build(path, 11, lambda _: None, _steps=120)
    return path


@pytest.fixture
def program(tmp_path, embedded_model) -> Program:
    config = tmp_path / "six steps.yaml"
    model = {"name_or_path": str(embedded_model), "dtype": "float32"}
    config.write_text(yaml.safe_dump({"model": model, **SETTINGS}))
    return Program(tmp_path, config)
