"""Calibrates the time estimate with an earlier run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from grpo_dist.config import load_config
from grpo_dist.errors import PlanError
from grpo_dist.plan.choose import choose, tensor_parallel_size
from grpo_dist.plan.fit import layout, workload
from grpo_dist.plan.inputs import Measured, basis_of
from grpo_dist.plan.time.efficiencies import DEFAULTS, Efficiencies
from grpo_dist.plan.time.inputs import Layout, Workload
from grpo_dist.plan.time.lengths import Lengths
from grpo_dist.plan.time.step import step_time
from grpo_dist.plan.topology import machines_of
from grpo_dist.run import metrics
from grpo_dist.run.directory import RunDirectory, read_json

WARM_UP = 3
"""Steps left out at the start: compilation, CUDA graphs and cold caches are in them."""
MINIMUM = 3
"""Number of samples required after that."""

STEP = "step_time"
GENERATION = "perf/generation_seconds"
MEAN = "completions/mean_length"
LONGEST = "completions/max_length"


@dataclass(frozen=True)
class _Sample:
    """Seconds of an optimizer step, measured and estimated without scales; None if they were not recorded."""

    step: float
    generation: float | None
    estimated_generation: float
    estimated_rest: float
    uncounted: float | None
    """Seconds between two lines that are not in TRL's step_time."""


def calibrate(
    metrics: Sequence[Mapping[str, Any]], workload: Workload, layout: Layout, base: Efficiencies = DEFAULTS
) -> Efficiencies:
    """Scales of generation and of the rest, as medians over the steps after warm-up.

    Each step is estimated with its own lengths; the policy sync counts as training. Without `perf/generation_seconds`,
    and where generation and training overlap, both get one common scale. Without `step_time`, a step lasts from one
    line's `time` to the next. `replaced` of the result says what was fitted, and from how many steps.

    Args:
        metrics: the lines of `metrics.jsonl`, in order.
        workload, layout: those of the measured run.

    Raises:
        PlanError: too few steps, or a needed key is missing.
    """
    _check(metrics)
    unscaled = replace(base, generation_scale=1.0, training_scale=1.0, other_seconds=0.0)
    samples = list(_windows(_samples(metrics[WARM_UP - 1 :], workload, layout, unscaled), workload.num_iterations))
    if len(samples) < MINIMUM:
        raise _too_few(len(metrics), workload.num_iterations)
    source = f"measured, median of {len(samples)} samples after warm-up"
    text, scales = _scales(samples, source)
    fitted = base.with_values(text, **scales)
    uncounted = [sample.uncounted for sample in samples if sample.uncounted is not None]
    return fitted.with_values(source, other_seconds=max(0.0, median(uncounted))) if uncounted else fitted


def _scales(samples: list[_Sample], source: str) -> tuple[str, dict[str, float]]:
    """(source, the two scales)."""
    generation = [
        sample.generation / sample.estimated_generation for sample in samples if sample.generation is not None
    ]
    if len(generation) < len(samples):
        both = median(sample.step / (sample.estimated_generation + sample.estimated_rest) for sample in samples)
        return f"{source}; one scale for all, {GENERATION} tells no more", _both(both, both)
    rest = [(sample.step - (sample.generation or 0.0)) / sample.estimated_rest for sample in samples]
    return source, _both(median(generation), median(rest))


def _both(generation: float, rest: float) -> dict[str, float]:
    return {"generation_scale": generation, "training_scale": rest}


def _samples(
    lines: Sequence[Mapping[str, Any]], workload: Workload, layout: Layout, efficiencies: Efficiencies
) -> Iterator[_Sample]:
    """The first line only gives the start of the second one's step, and what the second trains on if it generates
    nothing itself: TRL logs lengths and generation with the step that generated."""
    generated = lines[0]
    for before, line in pairwise(lines):
        trains_on_earlier = workload.num_iterations > 1 and line.get(MEAN) is None
        generated = generated if trains_on_earlier else line
        wall = _wall(before, line)
        step = line.get(STEP) or wall
        if not step or not generated.get(MEAN):
            continue
        taken = 0.0 if trains_on_earlier else _generation(before, line, step, workload.num_iterations)
        estimate = step_time(replace(workload, lengths=_lengths(generated, workload.lengths)), layout, efficiencies)
        yield _Sample(
            step=step,
            generation=None if layout.max_staleness else taken,
            estimated_generation=estimate.part("generation"),
            estimated_rest=estimate.seconds - estimate.part("generation"),
            uncounted=wall - step if wall and line.get(STEP) else None,
        )


def _generation(before: Mapping[str, Any], line: Mapping[str, Any], step: float, num_iterations: int) -> float | None:
    """Seconds of generation per optimizer step. The logged value is the mean over the generations since the previous
    line."""
    if line.get(GENERATION) is None:
        return None
    seconds = line[GENERATION] / min(line["step"] - before["step"], num_iterations)
    return seconds if 0 <= seconds < step else None


def _windows(samples: Iterator[_Sample], size: int) -> Iterator[_Sample]:
    """Means over `size` steps in a row: of a generation window's steps only the first generates."""
    window: list[_Sample] = []
    for sample in samples:
        window.append(sample)
        if len(window) == size:
            yield _Sample(**{name: _mean([getattr(one, name) for one in window]) for name in _Sample.__annotations__})
            window = []


def _mean(values: list[float | None]) -> Any:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _wall(before: Mapping[str, Any], line: Mapping[str, Any]) -> float | None:
    """Seconds per optimizer step between two lines; None if a key is missing or a resumed run starts over."""
    if any(record.get(key) is None for record in (before, line) for key in ("step", "time")):
        return None
    steps, seconds = line["step"] - before["step"], line["time"] - before["time"]
    return seconds / steps if steps > 0 and seconds > 0 else None


def _lengths(line: Mapping[str, Any], stated: Lengths) -> Lengths:
    mean = float(line[MEAN])
    longest = max(mean, float(line.get(LONGEST) or stated.longest))
    return Lengths(stated.prompt, mean, longest, stated.longest_prompt)


def _check(metrics: Sequence[Mapping[str, Any]]) -> None:
    if len(metrics) < WARM_UP + MINIMUM:
        raise _too_few(len(metrics), 1)
    keys = {key for line in metrics for key, value in line.items() if value is not None}
    missing = [MEAN] if MEAN not in keys else []
    missing += [f"{STEP} (or step and time)"] if STEP not in keys and not {"step", "time"} <= keys else []
    if missing:
        raise PlanError(
            f"metrics.jsonl cannot calibrate an estimate: no line has {', nor '.join(missing)}",
            hint="give a run that was trained with this program, or leave --calibrate out",
        )


def _too_few(lines: int, window: int) -> PlanError:
    needed = WARM_UP + MINIMUM * window
    return PlanError(
        f"metrics.jsonl has {lines} lines; calibrating needs {needed} with step_time and completions/mean_length, "
        f"{WARM_UP} of them to warm up",
        hint="give a longer run, or leave --calibrate out",
    )


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
    counted = read_json(run.prepared).get("longest_prompt") if run.prepared.exists() else None
    return counted if isinstance(counted, (int, float)) and counted > 0 else None


def _median(lines: list[dict[str, Any]], key: str) -> float | None:
    values = [line[key] for line in lines[WARM_UP:] if isinstance(line.get(key), (int, float))]
    return median(values) if values else None
