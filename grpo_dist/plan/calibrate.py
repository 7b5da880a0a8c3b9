"""Calibrates the time estimate with an earlier run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from grpo_dist.config import load_config
from grpo_dist.errors import PlanError
from grpo_dist.plan.choose import choose, tensor_parallel_size
from grpo_dist.plan.fit import layout, workload
from grpo_dist.plan.inputs import Measured, basis_of
from grpo_dist.plan.time import DEFAULTS
from grpo_dist.plan.time.calibration import LONGEST, MEAN, WARM_UP, calibrate
from grpo_dist.plan.topology import machines_of
from grpo_dist.run import metrics
from grpo_dist.run.directory import RunDirectory


def measured_in(path: Path) -> Measured:
    """Efficiencies and lengths of the run in a directory, from its config.yaml and metrics.jsonl.

    Raises:
        PlanError: there is no run, it has too few steps, or its model is not known here.
        ConfigError: its config.yaml is not a valid configuration.
    """
    run = RunDirectory(path)
    if not (run.config.is_file() and run.metrics.is_file()):
        raise PlanError(
            f"{path}: no run to calibrate with; it holds no {run.config.name} and {run.metrics.name}",
            hint="give the directory of a run that has trained some steps, or leave --calibrate out",
        )
    lines = metrics.read(run.metrics)
    source = f"median of {path / run.metrics.name} after warm-up"
    mean, longest = _median(lines, MEAN), _median(lines, LONGEST)
    texts = None if mean is None else Measured(DEFAULTS, mean, max(mean, longest or 0.0), source, _longest_prompt(run))
    basis = basis_of(load_config(run.config), texts)
    choice = choose(basis, machines_of(basis.config, tensor_parallel_size(basis)))
    if basis.architecture is None or choice.fitted is None:
        raise PlanError(f"{path}: cannot calibrate: {basis.unknown}", hint="leave --calibrate out")
    work = workload(basis, basis.architecture, choice.fitted.micro_batch)
    fitted = calibrate(lines, work, layout(basis, choice.split, choice.fitted.engine))
    return replace(texts, efficiencies=fitted) if texts else Measured(fitted, basis.lengths.mean, None, source)


def _longest_prompt(run: RunDirectory) -> float | None:
    """As counted by the prepare stage; None if it was not."""
    if not run.prepared.is_file():
        return None
    return json.loads(run.prepared.read_text(encoding="utf-8")).get("longest_prompt") or None


def _median(lines: list[dict[str, Any]], key: str) -> float | None:
    values = [line[key] for line in lines[WARM_UP:] if isinstance(line.get(key), (int, float))]
    return median(values) if values else None
