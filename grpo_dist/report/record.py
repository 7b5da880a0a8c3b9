"""What a run directory says, as far as the run has come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import yaml

from grpo_dist import metrics
from grpo_dist.errors import ReportError
from grpo_dist.report.comparison import Comparison
from grpo_dist.report.locate import is_run, not_a_run

State = Literal["running-or-stopped", "trained", "complete"]
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """A run directory, read once. What is not there yet is empty or None."""

    path: Path
    config_text: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    prepared: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Metrics, ...] = ()
    """One object per logged optimizer step, in the order of the steps."""
    comparison: Comparison | None = None
    adapter_saved: bool = False

    @property
    def name(self) -> str:
        return str(self.plan.get("run_name") or self.path.resolve().name)

    @property
    def state(self) -> State:
        """`trained`: the adapter is saved; `complete`: the comparison is there too."""
        if self.comparison:
            return "complete"
        return "trained" if self.adapter_saved else "running-or-stopped"

    @property
    def without_comparison(self) -> str:
        """Why there is no comparison."""
        if self.stated("evaluation.enabled") is False:
            return "Base and trained model are not compared: evaluation.enabled is false."
        if self.state == "trained":
            return "Training has ended; base and trained model have not been compared yet."
        return "Training has not ended: it is going on, or was stopped. The comparison is made when it ends."

    @property
    def steps(self) -> int:
        """The last logged optimizer step; 0 before the first."""
        return self.metrics[-1]["step"] if self.metrics else 0

    @property
    def num_iterations(self) -> int:
        """Optimizer steps that a generation serves."""
        found = self.stated("grpo.num_iterations")
        return found if type(found) is int and found > 0 else 1

    def stated(self, dotted: str) -> Any:
        """A value of config.yaml, e.g. `model.name_or_path`; None when it is not there."""
        return _inside(self.config, dotted)

    def planned(self, dotted: str) -> Any:
        """A value of plan.json, e.g. `batch.num_processes`; None when it is not there."""
        return _inside(self.plan, dotted)


def read_run(path: Path) -> RunRecord:
    """Read a run directory; the run may still be going on, or have been killed.

    Raises:
        ReportError: `path` is no run directory, or a file in it is damaged.
    """
    path = Path(path)
    if not is_run(path):
        raise not_a_run(path)
    config_text = _text(path / "config.yaml")
    return RunRecord(
        path=path,
        config_text=config_text,
        config=_yaml_object(path / "config.yaml", config_text),
        plan=_json_object(path / "plan.json"),
        prepared=_json_object(path / "prepared.json"),
        environment=_json_object(path / "environment.json"),
        metrics=_metrics(path / "metrics.jsonl"),
        comparison=_comparison(path / "comparison.json"),
        adapter_saved=(path / "adapter").is_dir(),
    )


def _text(path: Path) -> str:
    """The text of a file; nothing when there is no file."""
    with _readable(path):
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path}") from error


def _yaml_object(path: Path, text: str) -> Mapping[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _damaged(path, f"it is not YAML: {' '.join(str(error).split())}") from error
    return _object(path, value or {})


def _json_object(path: Path) -> Mapping[str, Any]:
    text = _text(path)
    try:
        return _object(path, metrics.parse(text)) if text else {}
    except ValueError as error:
        raise _damaged(path, f"it is not JSON: {error}") from error


def _metrics(path: Path) -> tuple[Metrics, ...]:
    with _readable(path):
        return tuple(metrics.read(path))


def _comparison(path: Path) -> Comparison | None:
    fields = _json_object(path)
    try:
        return Comparison.from_json(fields) if fields else None
    except KeyError as error:
        raise _damaged(path, f"the key {error} is missing") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise _damaged(path, f"a value is of the wrong kind ({error})") from error


def _object(path: Path, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _damaged(path, f"it should hold an object, not {type(value).__name__}")
    return value


def _damaged(path: Path, reason: str) -> ReportError:
    return ReportError(
        f"{path}: damaged, {reason}",
        hint=f"move it away (mv {path} {path}.damaged) and the report is made without it",
    )


def _inside(mapping: Any, dotted: str) -> Any:
    return reduce(lambda value, key: value.get(key) if isinstance(value, Mapping) else None, dotted.split("."), mapping)
