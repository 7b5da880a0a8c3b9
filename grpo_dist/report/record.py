"""What a run directory contains, as far as the run has progressed.

Reads `comparison.json` (base and trained model on the same held-out problems) and the rest of the run; decides which
directories are runs, and which one a mistyped path may mean.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import yaml

from grpo_dist.errors import ReportError, RunDirectoryError
from grpo_dist.evaluation import Interval
from grpo_dist.masking import masked
from grpo_dist.run import metrics
from grpo_dist.run.directory import CONFIG_FILE, METRICS_FILE, PLAN_FILE, RunDirectory, read_json, read_text
from grpo_dist.text import closest, first_few, plural


@dataclass(frozen=True)
class Scores:
    """One model. mean_at_k and pass_at_k are None if no completions were sampled; scores are None if the scorer does
    not give numbers from 0 to 1; lengths are in tokens."""

    greedy_accuracy: Interval
    mean_at_k: Interval | None
    pass_at_k: Interval | None
    greedy_score: Interval | None
    mean_score: Interval | None
    mean_completion_length: float | None
    clipped_ratio: float | None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Scores:
        others = ("mean_at_k", "pass_at_k", "greedy_score", "mean_score")
        read = {name: Interval.from_json(fields[name]) if fields.get(name) else None for name in others}
        return cls(
            greedy_accuracy=Interval.from_json(fields["greedy_accuracy"]),
            mean_completion_length=fields.get("mean_completion_length"),
            clipped_ratio=fields.get("clipped_ratio"),
            **read,
        )


@dataclass(frozen=True)
class Measure:
    """One statistic of both models."""

    label: str
    base: Interval
    trained: Interval
    difference: Interval | None
    """Trained minus base, paired by problem; None if the file has none."""

    @property
    def moved(self) -> float:
        return self.difference.estimate if self.difference else self.trained.estimate - self.base.estimate

    @property
    def sign(self) -> int:
        """1 if the trained model is significantly better, -1 if it is significantly worse, else 0.

        Decided by the paired difference; without one, by whether the intervals overlap.
        """
        if self.difference:
            return self.difference.sign
        return (self.trained.low > self.base.high) - (self.trained.high < self.base.low)


@dataclass(frozen=True)
class Flip:
    """A problem that only one model solves, with both greedy completions."""

    prompt: Any
    answer: str
    base: str
    trained: str

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Flip:
        return cls(fields["prompt"], str(fields["answer"]), str(fields["base"]), str(fields["trained"]))


@dataclass(frozen=True)
class Attempt:
    """One model on one problem; samples_correct counts among the k samples, None without samples."""

    greedy_correct: bool
    samples_correct: int | None
    greedy: str

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Attempt:
        return cls(bool(fields["greedy_correct"]), fields.get("samples_correct"), str(fields["greedy"]))


@dataclass(frozen=True)
class Problem:
    """One held-out problem; `prompt` is a text or a list of messages."""

    index: int
    prompt: Any
    answer: str
    base: Attempt
    trained: Attempt

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Problem:
        return cls(
            index=int(fields["index"]),
            prompt=fields["prompt"],
            answer=str(fields["answer"]),
            base=Attempt.from_json(fields["base"]),
            trained=Attempt.from_json(fields["trained"]),
        )


@dataclass(frozen=True)
class Comparison:
    """The whole file. Differences are trained minus base, paired by problem."""

    problems: int
    """Number of rows."""
    different_problems: int
    """Number of distinct problems, which intervals count."""
    k: int
    confidence: float
    scorer: str
    base: Scores
    trained: Scores
    difference: Interval
    """Difference in greedy accuracy."""
    differences: Mapping[str, Interval | None]
    """Statistic → its difference; without those that older files lack, None for those without samples."""
    gained: int
    lost: int
    gained_examples: tuple[Flip, ...]
    lost_examples: tuple[Flip, ...]
    per_problem: tuple[Problem, ...]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Comparison:
        """Read the file's object; KeyError, TypeError or ValueError when something is missing or of the wrong type."""
        flipped = fields.get("flipped") or {}
        return cls(
            problems=int(fields["problems"]),
            different_problems=int(fields.get("different_problems", fields["problems"])),
            k=int(fields["k"]),
            confidence=float(fields["confidence"]),
            scorer=str(fields["scorer"]),
            base=Scores.from_json(fields["base"]),
            trained=Scores.from_json(fields["trained"]),
            difference=Interval.from_json(fields["difference"]),
            differences={
                name: Interval.from_json(found) if found else None
                for name, found in {**fields.get("differences", {}), "greedy_accuracy": fields["difference"]}.items()
            },
            gained=int(fields["gained"]),
            lost=int(fields["lost"]),
            gained_examples=tuple(Flip.from_json(flip) for flip in flipped.get("gained", ())),
            lost_examples=tuple(Flip.from_json(flip) for flip in flipped.get("lost", ())),
            per_problem=tuple(Problem.from_json(problem) for problem in fields.get("per_problem", ())),
        )

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The statistics that both models have; scores only if they differ from accuracies."""
        scores = (("score", "greedy_score"), (f"score@{self.k}", "mean_score"))
        return self.accuracies + (self._measures(scores) if self.partial_credit else ())

    @property
    def accuracies(self) -> tuple[Measure, ...]:
        """The statistics of correct completions that both models have."""
        return self._measures(
            (("Greedy", "greedy_accuracy"), (f"mean@{self.k}", "mean_at_k"), (f"pass@{self.k}", "pass_at_k"))
        )

    def _measures(self, named: Iterable[tuple[str, str]]) -> tuple[Measure, ...]:
        both = ((label, name, getattr(self.base, name), getattr(self.trained, name)) for label, name in named)
        return tuple(
            Measure(label, base, trained, self.differences.get(name))
            for label, name, base, trained in both
            if base and trained
        )

    @property
    def partial_credit(self) -> bool:
        """Whether the scorer gave a model more credit than for correct completions."""
        models = (self.base, self.trained)
        pairs = [(one.greedy_accuracy, one.greedy_score) for one in models]
        pairs += [(one.mean_at_k, one.mean_score) for one in models]
        return any(score and score.estimate > (right.estimate if right else 0) + 1e-9 for right, score in pairs)

    @property
    def none_right(self) -> bool:
        """Whether no completion of either model was judged correct."""
        return not any(one.base.estimate or one.trained.estimate for one in self.accuracies)

    @property
    def counted(self) -> str:
        """The number of problems, and of distinct ones if some repeat others."""
        rows = plural(self.problems, "held-out problem")
        return rows if self.different_problems == self.problems else f"{rows} ({self.different_problems:,} different)"


MARKS = (CONFIG_FILE, PLAN_FILE, METRICS_FILE)
"""A directory with one of these files is a run directory."""
SWEEP_FILE = "sweep.json"
"""A directory with this file holds the runs of a sweep."""
SHOWN = 8
MAX_DEPTH = 32
"""Levels of config.yaml."""


def is_run(path: Path) -> bool:
    return any(os.path.isfile(path / name) for name in MARKS)


def is_sweep(path: Path) -> bool:
    return os.path.isfile(path / SWEEP_FILE)


def runs_below(path: Path) -> list[Path]:
    """The run itself, or the runs in a directory and in its sweeps, sorted by name.

    Raises:
        ReportError: there are none.
    """
    if is_run(path):
        return [path]
    found = [run for inner in _runs_in(path, sweeps=True) for run in ([inner] if is_run(inner) else _runs_in(inner))]
    if not found:
        raise not_a_run(path)
    return found


def not_a_run(path: Path) -> ReportError:
    """The error for a path that is not a run directory, with the runs it may mean."""
    needed = f"none of {', '.join(MARKS)} is in it"
    if not os.path.exists(path):
        return ReportError(f"{path}: there is no such run directory", hint=_meant(path))
    if not os.path.isdir(path):
        return ReportError(f"{path}: a file, not a run directory", hint=_meant(path))
    return ReportError(f"{path}: no run directory, {needed}", hint=_meant(path))


def _meant(path: Path) -> str:
    if is_run(path.parent) and not os.path.isdir(path):
        return f"give the run directory: {path.parent}"
    if inside := _runs_in(path):
        return f"give one of the runs in it: {first_few(inside, SHOWN)}"
    beside = _runs_in(path.parent)
    if not beside:
        return "give the directory that was named when the run was started (its --output)"
    names = [run.name for run in beside]
    near = closest(path.name, names)
    question = f"did you mean {path.parent / near}? " if near else ""
    return f"{question}Other runs there: {first_few(beside, SHOWN)}"


def _runs_in(folder: Path, *, sweeps: bool = False) -> list[Path]:
    """Sorted by name; hidden ones are drafts."""
    try:
        shown = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return [path for path in shown if is_run(path) or (sweeps and is_sweep(path))]
    except OSError:
        return []


State = Literal["running-or-stopped", "trained", "complete"]
Progress = Literal["new", "running", "stopped", "failed", "finished"]
Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run directory, read once. Missing files give empty values or None."""

    path: Path
    config_text: str = ""
    """Without its secrets, as `config`: a record is for others to read."""
    config: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    prepared: Mapping[str, Any] = field(default_factory=dict)
    preflight: Mapping[str, Any] = field(default_factory=dict)
    """Of the rewards."""
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
    def progress(self) -> Progress:
        """The state in the words of `grpo-dist status`, as far as the run directory tells."""
        run = RunDirectory(self.path)
        if self.comparison or (self.adapter_saved and self.stated("evaluation.enabled") is False):
            return "finished"
        if not run.is_idle():
            return "running"
        if run.failure.exists():
            return "failed"
        return "stopped" if self.metrics or run.attempts() or run.job.exists() else "new"

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
        """Optimizer steps per generation."""
        found = self.stated("grpo.num_iterations")
        return found if type(found) is int and found > 0 else 1

    def stated(self, dotted: str) -> Any:
        """A value of config.yaml, e.g. `model.name_or_path`; None if missing."""
        return _inside(self.config, dotted)

    def planned(self, dotted: str) -> Any:
        """A value of plan.json, e.g. `batch.num_processes`; None if missing."""
        return _inside(self.plan, dotted)


def read_run(path: Path) -> RunRecord:
    """Read a run directory; the run may still be active, or have been killed.

    Raises:
        ReportError: `path` is no run directory, or a file in it is damaged.
    """
    path, run = Path(path), RunDirectory(Path(path))
    if not is_run(path):
        raise not_a_run(path)
    config_text = _text(run.config)
    config = _yaml_object(run.config, config_text)
    public = masked(config)
    return RunRecord(
        path=path,
        config_text=config_text if public == config else yaml.safe_dump(public, sort_keys=False, allow_unicode=True),
        config=public,
        plan=_of_kinds(run.plan, {"max_steps": int, "batch": dict, "topology": dict}),
        prepared=_json_object(run.prepared),
        preflight=_json_object(run.rewards_preflight),
        environment=_of_kinds(run.environment, {"packages": dict, "devices": list, "backend": dict}),
        metrics=_metrics(run.metrics),
        comparison=_comparison(run.comparison),
        adapter_saved=run.adapter.is_dir(),
    )


def _text(path: Path) -> str:
    """The text of a file; "" if there is no file."""
    with _as_report_errors():
        return read_text(path) if os.path.lexists(path) else ""


@contextmanager
def _as_report_errors() -> Iterator[None]:
    try:
        yield
    except RunDirectoryError as error:
        raise ReportError(error.message, hint=error.hint) from error


class _BoundedLoader(yaml.SafeLoader):
    """For what `dump_config` writes: no aliases, which may stand for any amount, and a few levels."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH or self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases, or more than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _yaml_object(path: Path, text: str) -> Mapping[str, Any]:
    try:
        value = yaml.load(text, Loader=_BoundedLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise _damaged(path, f"it is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value or {}, dict):
        raise _damaged(path, f"it should hold an object, not {type(value).__name__}")
    return value or {}


def _json_object(path: Path) -> Mapping[str, Any]:
    if not os.path.lexists(path):
        return {}
    with _as_report_errors():
        return read_json(path, _way_out(path))


KINDS = {dict: "an object", list: "a list", int: "a number"}


def _of_kinds(path: Path, kinds: Mapping[str, type]) -> Mapping[str, Any]:
    found = _json_object(path)
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind | None):
            raise _damaged(path, f"{name} should be {KINDS[kind]}")
    return found


def _metrics(path: Path) -> tuple[Metrics, ...]:
    with _as_report_errors():
        return tuple(metrics.read(path))


def _comparison(path: Path) -> Comparison | None:
    fields = _json_object(path)
    try:
        return Comparison.from_json(fields) if fields else None
    except KeyError as error:
        raise _damaged(path, f"the key {error} is missing") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(path, f"a value is of the wrong kind ({error})") from error


def _damaged(path: Path, reason: str) -> ReportError:
    return ReportError(f"{path}: damaged, {reason}", hint=_way_out(path))


def _way_out(path: Path) -> str:
    there = shlex.quote(str(path))
    return f"move it away (mv {there} {there}.damaged) and the report is made without it"


def _inside(mapping: Any, dotted: str) -> Any:
    return reduce(lambda value, key: value.get(key) if isinstance(value, Mapping) else None, dotted.split("."), mapping)
